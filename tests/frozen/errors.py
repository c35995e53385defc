"""Wrong inputs over all commands. Each is typed in the folder that ``place`` furnishes and spoils."""

from __future__ import annotations

from pathlib import Path

from tests.frozen import texts

_GIVEN = "generate runs/tiny --first-frame frame.png --poses poses"
_PACKED = "train packed --size 16x16"

WRONG = tuple(
    line.strip()
    for line in f"""
    trian
    runs lst
    --quiet --verbose runs list
    demo -o full
    train nowhere
    train dat
    train data/train
    train notes.gif
    train torn-data --size 16x16
    train torn-packed --size 16x16
    train flipped-packed --size 16x16
    train packed --size 24x24
    train data --data packed
    train --epoch 3
    train data --epochs many
    train data --max-minutes 3m
    train data packed
    train data packed more
    train clip.mp4 --size huge
    checkpoint import frame.png -o frame.png
    {_GIVEN} --side-by-side -o frame.gif
    train data --size 30x64
    train data --model pose-cave
    train data --preset curse
    train data --device tpu
    train data --config none.toml
    train data --config bad.toml
    train data --set nonsense
    train data --set kl.tpye=none
    train data --set loss.smoothing=-0.1 --set teacher_forcing.ratio=1.5 --lr 0
    train data --set validation.frames=1
    train data --size 16x16 --clip-length 5000
    train data --json --plain
    train push --model anchor-cvae
    {_PACKED} --run runs/tiny
    {_PACKED} --run notes.txt/run
    {_PACKED} --init runs/arm
    {_PACKED} --init notes.txt
    resume nowhere
    resume runs/tny
    resume runs/tiny --epochs 1
    resume runs/tiny --epochs 3 --more-epochs 1
    resume runs/tiny --max-minutes 0.000001
    resume runs/tiny --data data
    resume runs/tiny --resume-from none.safetensors
    resume runs/tiny --resume-from runs/arm/checkpoints/last.safetensors
    resume runs/torn
    resume runs/edited
    resume runs/lost
    sweep packed
    sweep nowhere --vary kl.type=none
    sweep packed --vary kl.type
    sweep packed --vary kl.type=none --vary kl.type=cyclical
    sweep packed --vary kl.type=cyclical,cylical --vary teacher_forcing.ratio=0,2 --vary kl.tpye=none
    sweep packed --vary training.seed=1,2 --seeds 2
    sweep packed --vary kl.ratio=0.5,0.50
    ablate packed
    ablate packed --steps 4 --max-minutes 1
    ablate nowhere --steps 4
    evaluate nowhere
    evaluate frame.png
    evaluate notes.txt
    evaluate noise.safetensors
    evaluate runs/bare
    evaluate runs/torn
    evaluate runs/tiny/checkpoints/none.safetensors
    evaluate runs/tiny --data nowhere
    evaluate runs/tiny --data push
    evaluate runs/tiny --split dev
    evaluate runs/tiny --past 3
    evaluate runs/tiny --past two
    evaluate runs/tiny --future 500
    evaluate runs/tiny --frames 5 --future 3
    evaluate runs/tiny --latent zeros
    evaluate runs/tiny --latent zero --samples 2
    evaluate runs/arm --batch-stats
    evaluate runs/tiny --shuffle-actions
    evaluate runs/tiny --weights ema
    evaluate runs/tiny --long 3
    evaluate runs/tiny --lpips-weights none.pt
    evaluate runs/tiny --fvd-weights none.pt
    evaluate runs/tiny -o runs
    evaluate runs/tiny -o notes.txt/score.json
    generate runs/tiny
    generate runs/tiny --first-frame poses --poses frame.png
    generate runs/tiny --first-frame poses --poses poses
    generate runs/tiny --first-frame frame.png --poses frame.png
    generate runs/tiny --first-frame frame.png --poses gappy
    generate runs/tiny --first-frame frame.png --poses empty
    generate runs/tiny --first-frame frame.png --poses nowhere
    generate runs/tiny --first-frame notes.txt --poses poses
    generate runs/tiny --trajectory push/test/traj_0_to_0/0
    generate --trajectory push/test/traj_0_to_0/0
    generate runs/arm --first-frame frame.png --poses poses
    generate runs/arm --past-frames pictures
    generate runs/arm --trajectory empty
    {_GIVEN} -o x.avi
    {_GIVEN} -o full
    {_GIVEN} -o x.gif --fps 0
    {_GIVEN} -o x.gif --fps 500
    {_GIVEN} -o notes.txt/x.gif
    {_GIVEN} --samples 99
    {_GIVEN} --samples 3 --latent zero
    {_GIVEN} --latent posterior
    {_GIVEN} --latents noise.safetensors
    {_GIVEN} --target-poses poses
    {_GIVEN} --fit-poses --target-poses empty
    export nowhere
    export runs/tiny -o runs
    export runs/tiny --split dev
    export runs/tiny --latent posterior
    export runs/tiny --gifs full
    compare
    compare nowhere
    compare runs/tiny --json --markdown
    compare runs/tiny --sort speed
    compare runs/tiny --record val-prior
    compare score.json
    play nowhere
    play runs/tiny --port 99999
    play runs/tiny --data nowhere
    play runs/tiny --poses nowhere
    play runs/arm --poses poses
    report nowhere
    report runs/tiny -o report.pdf
    report runs/tiny --data nowhere -o report.html
    plot loss nowhere
    plot loss runs/bare
    plot loss runs/torn
    plot loss noise.safetensors
    plot loss runs/tiny -o loss.bmp
    plot loss runs/tiny -o notes.txt/loss.png
    plot psnr runs/torn
    plot lr runs/bare
    plot kl nowhere
    plot schedule runs/tiny --preset course
    plot drift runs/tiny --split dev
    plot drift runs/tiny --age-test --latent none
    plot latents frame.png
    runs list nowhere
    runs show nowhere
    runs show runs/tny
    runs prune nowhere
    runs rm runs/tiny
    runs rm data
    checkpoint show frame.png
    checkpoint show nowhere
    checkpoint verify runs/torn/checkpoints/last.safetensors
    checkpoint verify notes.txt
    checkpoint import nowhere.ckpt -o x.safetensors
    checkpoint import other.ckpt -o x.safetensors
    checkpoint import notes.txt -o x.safetensors
    checkpoint verify other.ckpt
    config show nowhere
    config show runs/tiny --preset course
    config check none.toml
    config check bad.toml
    config check wrong.toml
    config init -o notes.txt
    config explain kl.rtio
    presets --jsn
    doctor nowhere
    bench sing
    bench train --latency
    bench generate --size 30x30
    dataset inspct
    dataset inspect nowhere
    dataset inspect empty
    dataset inspect torn-data
    dataset inspect torn-packed
    dataset inspect flipped-packed
    dataset inspect packed --size 24x24
    dataset pack nowhere -o x
    dataset pack data
    dataset pack data -o full --size 16x16
    dataset synth dance -o full
    dataset synth dance -o x --size 30x64
    dataset synth push -o x --frames 2
    dataset synth push x -o y
    dataset import video clip.mp4 -o x
    dataset import video clip.mp4 -o x --keypoints coco.json --estimate
    dataset import frames pictures -o x --keypoints none.json
    dataset import frames pictures -o x --keypoints score.json
    dataset import frames pictures -o full --keypoints coco.json
    dataset import frames empty -o x --keypoints coco.json
    dataset import frames pictures -o x --keypoints coco.json --keypoint-format coco
    dataset import gif notes.gif -o x --keypoints coco.json
    dataset import gif notes.gif -o x --keypoints coco.json --fps 0
    dataset import bair empty -o x
    dataset import bair data -o x
    """.splitlines()
    if line.strip()
)


def answer(line: str, place: Path) -> str:
    """The exit code and standard error."""
    result = texts.run(line, place)
    assert not result.fault, result.fault
    return f"exit {result.code}\n{texts.neutral(result.err, place)}"
