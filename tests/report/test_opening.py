"""The paragraph on top: what it is, is it equal, how fast, which file to take, what to beware of."""

from __future__ import annotations

from dataclasses import replace

from fake_speed import PRODUCTS, WITHOUT_VNNI, speed_report
from report_samples import (
    FILE,
    INT8,
    accuracy,
    bench,
    build,
    layer,
    layers,
    on_noise,
    quantized_manifest,
    report,
    tune,
)
from report_samples import manifest as described
from two_files import BOTH, TUNED, evidence, timed, tuned_on_noise, with_tuned

from s2mlp_deploy.artifact import Hazard, Manifest, SourceInfo
from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.report.opening import opening

LOSS = ", 0.10 points below its source on held-out digits (1,000 images)"
"""What parity found of accuracy, where nobody scored a file."""


def paragraph(manifest: Manifest, *records: object) -> str:
    return " ".join(opening(manifest, evidence(*records), "out").sentences)


def test_everything_is_answered_in_order() -> None:
    trusted = replace(bench(), warnings=(), results=tuple(replace(r, warnings=()) for r in bench().results))
    assert paragraph(quantized_manifest(), *BOTH, accuracy(), trusted) == (
        "This is s2mlpv2_nano with the weights of digits.safetensors, as 2 ONNX files in fp32 and int8, for 2 classes. "
        "Both files on onnxruntime 1.22.0 (cpu) compute what torch 2.13.0 (cpu) computes over held-out digits (1,000 "
        "images): largest difference 7.63e-06 (model.fp32.onnx), the same first class on at least 99.95 % of them. "
        "One image takes 2 ms in model.fp32.onnx (2 to 2 over its rounds) and 1 ms in model.int8.onnx (2.00 times as "
        "fast, 1.92 to 2.08) on onnxruntime 1.32.0 (CPU), 1 thread, A processor. "
        "Take model.int8.onnx on onnxruntime: the fastest whose parity and accuracy hold, 0.10 points below fp32 "
        "on 1,000 images."
    )


def test_files_that_ran_on_the_same_engines_share_a_sentence_whatever_the_order() -> None:
    there = [replace(item, candidate="openvino (CPU)") for item in BOTH]
    text = paragraph(quantized_manifest(), BOTH[0], there[0], there[1], BOTH[1])
    assert "Both files on onnxruntime 1.22.0 (cpu) and openvino (CPU) compute" in text


def test_what_was_not_measured_names_the_command() -> None:
    found = opening(described(), evidence(), "out")
    assert found.headline == "Parity was not measured yet"
    assert "How fast it is was not measured. Take none of them yet: parity was not measured." in " ".join(
        found.sentences
    )
    assert found.commands == ("s2mlp-deploy parity s2mlpv2_nano out", "s2mlp-deploy bench out")
    assert paragraph(described(), report()).endswith(f"Take model.fp32.onnx: its parity holds{LOSS}.")
    empty = opening(replace(described(), files=()), evidence(), "out")
    assert not any("bench" in command for command in empty.commands)


def test_what_tune_chose_is_told_while_it_is_there() -> None:
    first, _, int8, *others = tune().trials
    text = paragraph(quantized_manifest(), *BOTH, replace(tune(), trials=(first, int8, *others)))
    assert (
        "tune tried 3 ways on A processor and chose model.int8.onnx on openvino, 2.00 times as fast as before." in text
    )
    assert (
        "Take model.int8.onnx on openvino (1 thread): what tune found fastest of those whose parity and accuracy hold, "
        f"and what predict runs{LOSS}. tune tried" in text
    )
    assert (
        "How fast they are was measured by tune alone (processor time): a run of 1 took 1 ms in model.int8.onnx on "
        "openvino." in text
    )
    plain = replace(first, outcome="won")
    text = paragraph(quantized_manifest(), *BOTH, replace(tune(), trials=(plain, int8, *others)))
    assert "2.00 times as fast as before; and model.fp32.onnx on onnxruntime (1 thread)." in text
    changed = replace(tune(), trials=(first, replace(int8, sha256="d" * 64), *others))
    text = paragraph(quantized_manifest(), *BOTH, changed)
    assert "tune" not in text
    assert "How fast they are was not measured." in text


def test_no_slower_file_than_that_of_tune_is_recommended() -> None:
    first, _, int8, *others = tune().trials
    known = replace(tune(), trials=(first, replace(int8, engine="onnxruntime"), *others))
    slower = timed(Ratio("first", 1.25, 1.1, 1.3))
    text = paragraph(quantized_manifest(), *BOTH, bench(), known)
    assert "Take model.int8.onnx on onnxruntime (1 thread): what tune found fastest" in text
    assert "tune again" not in text
    # It loses more than is allowed, which predict does not ask.
    low = replace(accuracy(), rows=(accuracy().rows[0], replace(accuracy().rows[1], failures=("below",))))
    first_won = replace(known, trials=(replace(first, outcome="won"), *known.trials[1:]))
    text = paragraph(quantized_manifest(), *BOTH, low, bench(), first_won)
    assert "Take model.fp32.onnx on onnxruntime (1 thread): what tune found fastest of those whose" in text
    assert "predict runs" not in text
    latency = slower.results[1].latency
    assert latency is not None
    slower = replace(slower, results=(slower.results[0], replace(slower.results[1], latency=replace(latency, p50=2.5))))
    text = paragraph(quantized_manifest(), *BOTH, slower, known)
    assert "model.fp32.onnx on onnxruntime took less time in a benchmark (2 ms of 2.5 ms): tune again." in text


def test_whose_score_it_is_is_told_of_a_file_that_tune_made() -> None:
    first, _, int8, *others = tune().trials
    won = replace(int8, file=TUNED, sha256="d" * 64, precision="int8", engine="onnxruntime")
    chose = replace(tune(), trials=(first, won, *others))
    text = paragraph(with_tuned(), *BOTH, accuracy(), tuned_on_noise(), chose)
    assert (
        f"Take {TUNED} on onnxruntime (1 thread): what tune found fastest of those whose parity and accuracy hold, and "
        f"what predict runs; it was not scored itself: {INT8}, which it was compared with, is 0.10 points below fp32 "
        "on 1,000 images." in text
    )
    assert f"{TUNED} was compared on noise alone" in text
    own = replace(BOTH[1], file=TUNED, file_sha256="d" * 64)
    text = paragraph(with_tuned(), *BOTH, accuracy(), tuned_on_noise(), own, chose)
    assert f"and what predict runs{LOSS}." in text


def test_a_second_benchmark_is_told_with_its_engine_and_one_runtime_once() -> None:
    first, second, _ = bench().results
    ahead = [
        replace(r, candidate=replace(r.candidate, engine="openvino", runtime=f"openvino{version} (CPU)"))
        for r, version in ((first, " 2026.4.1"), (second, ""))
    ]
    later = replace(bench(), results=tuple(ahead), environment=replace(bench().environment, time="2027"))
    text = paragraph(quantized_manifest(), *BOTH, later, bench())
    assert (
        "One image takes 2 ms in model.fp32.onnx (2 to 2 over its rounds) and 1 ms in model.int8.onnx (2.00 times as "
        "fast, 1.92 to 2.08) on openvino 2026.4.1 (CPU), 1 thread, A processor. In another benchmark, one image takes "
        "2 ms in model.fp32.onnx" in text
    )
    assert "Take model.int8.onnx on onnxruntime: the fastest whose parity" in text


def test_a_faster_file_that_fails_is_named_with_the_reason() -> None:
    failing = replace(BOTH[1], failures=("far off",))
    text = paragraph(quantized_manifest(), BOTH[0], failing, bench())
    assert "Do not deploy model.int8.onnx" in text
    assert (
        f"Take model.fp32.onnx on onnxruntime: the only one timed whose parity holds{LOSS}. Not model.int8.onnx ("
        in text
    )


def test_no_winner_inside_the_noise() -> None:
    text = paragraph(quantized_manifest(), *BOTH, timed(Ratio("first", 0.98, 0.95, 1.01)))
    assert "1 ms in model.int8.onnx (no difference measured)" in text
    assert f"Take model.fp32.onnx on onnxruntime: model.int8.onnx was not measured to be faster{LOSS}." in text


def test_a_ratio_to_a_file_that_is_gone_says_so_and_a_damaged_interval_ends_nothing() -> None:
    damaged = Ratio("old.onnx on onnxruntime, batch 1", 0.5, 0.0, 0.6)
    (second,) = timed(damaged).results[1:]
    text = paragraph(quantized_manifest(), *BOTH, replace(bench(), results=(second,)))
    assert "(2.00 times as fast as old.onnx on onnxruntime, batch 1, which is not there any more, 1.67 to " in text


def test_a_faster_engine_on_which_parity_was_not_measured_is_named_with_the_command() -> None:
    first, second, _ = bench().results
    elsewhere = replace(second, candidate=replace(second.candidate, engine="openvino"))
    found = opening(quantized_manifest(), evidence(*BOTH, replace(bench(), results=(first, elsewhere))), "out")
    text = " ".join(found.sentences)
    assert "1 ms in model.int8.onnx on openvino (2.00 times as fast" in text
    assert "model.int8.onnx on openvino takes less time, and its parity was not measured there." in text
    assert found.commands == ("s2mlp-deploy parity s2mlpv2_nano out/model.int8.onnx --engine openvino",)


def beware(manifest: Manifest, *records: object) -> str:
    return paragraph(manifest, *records).partition("Beware: ")[2]


def test_dangers_are_told_and_none_where_there_is_none() -> None:
    assert beware(described(), report()) == ""
    race = Hazard("race", "net.py:18", "x[1:] = x[:-1]", 1, 72)
    compiler = replace(race, kind="compiler", where="net.py:20")
    random = described(
        hazards=(race, compiler), source=SourceInfo("s2mlpv2_nano", seed=7), preprocessing=None, classes=("a", "b")
    )
    assert beware(random, replace(on_noise(), weights=None)) == (
        "eager PyTorch computes something else, because its code races; torch.compile may get net.py:20 wrong; the "
        "weights are random (seed 7), so the predictions mean nothing; model.fp32.onnx was compared on noise alone, "
        "not on images; how its images were prepared is not stated."
    )


def test_slow_quantized_files_and_doubtful_times_are_dangers() -> None:
    text = beware(quantized_manifest(), *BOTH, timed(Ratio("first", 1.25, 1.1, 1.3)))
    assert text.startswith("model.int8.onnx is 1.25 times as slow as model.fp32.onnx on this machine; the times are ")
    assert text.endswith("the times are doubtful (other programs kept 1.5 processors busy).")


def test_a_file_that_is_slow_on_one_engine_and_to_be_taken_on_another_is_told_with_the_engine() -> None:
    run = timed(Ratio("first", 0.5, 0.48, 0.52))
    fast = run.results[1]
    slow = replace(fast, candidate=replace(fast.candidate, engine="openvino"), ratio=Ratio("first", 1.25, 1.1, 1.3))
    text = paragraph(quantized_manifest(), *BOTH, replace(run, results=(*run.results, slow)))
    assert "Take model.int8.onnx on onnxruntime: " in text
    assert "Beware: model.int8.onnx on openvino is 1.25 times as slow as model.fp32.onnx on this machine; " in text


def test_dangers_of_another_benchmark_are_told_with_its_engine() -> None:
    first = bench().results[0]
    alone = replace(bench(), results=(first,), warnings=(), environment=replace(bench().environment, time="2027"))
    slow = timed(Ratio("first", 1.25, 1.1, 1.3))
    there = [replace(r, candidate=replace(r.candidate, engine="openvino")) for r in slow.results]
    text = beware(quantized_manifest(), *BOTH, alone, replace(slow, results=tuple(there)))
    assert text.startswith("model.int8.onnx is 1.25 times as slow as model.fp32.onnx on openvino on this machine; ")
    assert text.endswith("the times are doubtful (other programs kept 1.5 processors busy).")


def test_a_slow_file_has_its_reason_in_the_paragraph() -> None:
    slow = speed_report((FILE, INT8), {"int8": 1.4}, profile=PRODUCTS, processor=WITHOUT_VNNI)
    first, second, _ = bench().results
    hashes = [result.candidate.sha256 for result in (first, second)]
    results = [replace(r, candidate=replace(r.candidate, sha256=h)) for r, h in zip(slow.results, hashes, strict=True)]
    text = beware(quantized_manifest(), *BOTH, replace(slow, results=tuple(results)))
    assert text == (
        "model.int8.onnx is 1.40 times as slow as model.fp32.onnx on this machine (the processor has no VNNI, so that "
        "exact sums of 8-bit products take slower kernels; products and convolutions in float32 (1 of them) take 90 % "
        "of the time)."
    )


def test_evidence_of_other_bytes_is_named() -> None:
    first, second, _ = bench().results
    older = replace(bench(), results=(first, replace(second, candidate=replace(second.candidate, sha256="9" * 64))))
    measured = (
        BOTH[0],
        replace(BOTH[1], file_sha256="9" * 64),
        replace(accuracy(), sha256={FILE: report().file_sha256, INT8: "9" * 64}),
        older,
        replace(older, scenario="offline"),
        replace(build(), onnx_sha256="9" * 64),
    )
    assert beware(quantized_manifest(), *measured).endswith(
        "evidence of older files is marked and counts no more: scores of model.int8.onnx; times of model.int8.onnx "
        "and engine model.fp32.tensorrt-rtx.sm86.engine."
    )
    found = opening(quantized_manifest(), evidence(*measured), "out")
    assert "Measured before the file changed, which counts no more: model.int8.onnx." in found.sentences
    assert " ".join(found.sentences).count("Not ") == 0, "it is told once"
    assert found.commands == (
        "s2mlp-deploy parity s2mlpv2_nano out/model.int8.onnx",
        "s2mlp-deploy bench out",
    )


def test_the_layer_that_departs_first_is_named() -> None:
    far = layer("stages.1", max_abs=1.0)
    assert far.failures
    found = replace(layers(layer("stages.0"), far), file_sha256=report().file_sha256)
    assert beware(described(), report(), found) == "stages.1 departs first in model.fp32.onnx."
    assert beware(described(), report(), replace(found, file_sha256="9" * 64)) == ""
    elsewhere = replace(found, candidate="openvino (CPU)")
    assert beware(described(), report(), elsewhere) == "stages.1 departs first in model.fp32.onnx on openvino."


def test_references_and_data_are_words_of_a_sentence() -> None:
    found = replace(report(), reference="torch, s2mlpv2_nano", data="200 images of images", images=200)
    told = paragraph(described(), found)
    assert "what s2mlpv2_nano on torch computes over 200 images of the folder images: " in told
