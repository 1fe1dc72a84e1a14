"""How packages of engines are loaded."""

from __future__ import annotations

import sys
import threading
import warnings
from types import SimpleNamespace

from s2mlp_deploy.engines.packages import load_cuda_libraries


def test_threads_that_load_libraries_at_once_give_stdout_back():
    stdout, inside, first_ended = sys.stdout, [], threading.Event()
    both_inside = threading.Event()

    def preload():
        inside.append(threading.current_thread())
        if len(inside) == 1:
            both_inside.wait(0.1)  # Nobody comes while this one is here.
        else:
            both_inside.set()
            first_ended.wait(1)

    def load():
        load_cuda_libraries(SimpleNamespace(preload_dlls=preload))
        if threading.current_thread() is inside[0]:
            first_ended.set()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left, sys.stdout = sys.stdout, stdout
    assert left is stdout


def test_what_a_provider_warns_of_while_it_loads_is_told_as_what_is_printed(recwarn):
    def preload():
        print("Failed to load libcudnn.so.9")
        warnings.warn("Failed to register bundled CUDA plugin EP", stacklevel=1)

    told = load_cuda_libraries(SimpleNamespace(preload_dlls=preload))
    assert told == "Failed to load libcudnn.so.9 Failed to register bundled CUDA plugin EP"
    assert not recwarn.list
