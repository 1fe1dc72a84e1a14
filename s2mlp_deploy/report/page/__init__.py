"""Pages: what they show, decided in Python; the templates only lay it out."""
