"""Which commands there are and what they take.  No JAX here: each command is imported when it runs."""

import argparse
import importlib
import pathlib

from gm_jax import __version__
from gm_jax.cli.options import Parser

RUN = "a run's directory, as `gm-jax train` made it"
SPLIT = "count the CPU as so many devices, over which the strategy cuts the batch: a core for each is often faster"


def parser() -> Parser:
  """The whole command line; parsing gives a namespace with `command(options, rest)`."""
  root = Parser(prog="gm-jax", description="Train, sample and score deep generative models.")
  root.add_argument("--version", action="version", version=f"gm-jax {__version__}")
  commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

  def add(name: str, summary: str, **texts) -> Parser:
    command = commands.add_parser(name, help=summary, description=summary, **texts)
    command.set_defaults(command=_later(name, command))
    return command

  demo = add("demo", "train a small model on the embedded digits and write a picture of samples, in a minute")
  demo.add_argument("--run", type=pathlib.Path, default=pathlib.Path("runs/demo"), help="where (default: %(default)s)")

  add("list", "the experiments by family, each with what it promises")

  train = add(
    "train",
    "train an experiment, or resume it where it stopped",
    epilog="`gm-jax train NAME --help` shows the experiment's own: --steps, --seed, --data-dir, --strategy, and its fields.",
    add_help=False,  # `train NAME --help` is answered with the experiment's fields
  )
  train.add_argument("name", metavar="NAME", nargs="?", help="as `gm-jax list` shows it")
  train.add_argument("--run", type=pathlib.Path, metavar="DIR", help="the run's directory (default: runs/NAME)")
  train.add_argument("--cpu-devices", type=int, metavar="N", help=SPLIT)
  several = train.add_argument_group("several processes", "one command on every host; SLURM, GKE, TPU pods: --processes auto")
  several.add_argument("--processes", metavar="N", type=_processes, help="how many, or auto")
  several.add_argument("--process-id", metavar="I", type=int, help="which one this is, from 0")
  several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens; on a trusted network only")

  sample = add("sample", "draw images from a run; image i depends on the seed and on i alone")
  sample.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  sample.add_argument("--num", type=int, default=64, metavar="N", help="how many (default: %(default)s)")
  sample.add_argument("--seed", type=int, default=0, metavar="S", help="(default: %(default)s)")
  sample.add_argument("--label", type=int, metavar="L", help="the class, for models that are conditional")
  sample.add_argument("--out", type=pathlib.Path, metavar="F", help="F.png or F.npy, [N, H, W, C] (default: in RUN/samples)")

  evaluate = add("evaluate", "score a run on a whole split: means, standard errors, and the protocol they were measured under")
  evaluate.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  evaluate.add_argument("--split", default="test", help="(default: %(default)s)")
  evaluate.add_argument("--seed", type=int, default=0, metavar="S", help="of whatever the measure draws (default: %(default)s)")
  evaluate.add_argument("--cpu-devices", type=int, metavar="N", help=SPLIT)
  _json(evaluate)

  picture = add("picture", "draw what the experiment shows besides samples: densities, directions, curves, where it has any")
  picture.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)

  parameters = add("parameters", "how many numbers a table of all images takes, and how few each independence leaves")
  parameters.add_argument("--height", type=int, default=28, metavar="H", help="(default: %(default)s)")
  parameters.add_argument("--width", type=int, default=28, metavar="W", help="(default: %(default)s)")
  parameters.add_argument("--channels", type=int, default=1, metavar="C", help="(default: %(default)s)")
  parameters.add_argument("--levels", type=int, default=2, metavar="L", help="of each pixel and channel (default: %(default)s)")
  _json(parameters)

  classify = add("classify", "classify by Bayes' rule with a conditional run: accuracy, log-loss, calibration, confusion")
  classify.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  classify.add_argument("--split", default="test", help="(default: %(default)s)")
  priors = "every class alike, or as frequent as in training (default: %(default)s)"
  classify.add_argument("--prior", choices=("uniform", "counts"), default="uniform", help=priors)
  classify.add_argument("--seed", type=int, default=0, metavar="S", help="of whatever a density draws (default: %(default)s)")
  _json(classify)

  outliers = add("outliers", "how well runs tell other kinds of image from their own data: a table of AUROCs by several scores")
  outliers.add_argument("run", type=pathlib.Path, metavar="RUN", nargs="+", help="directories of runs whose data are images")
  kinds = "shuffled, rotated, inverted, noise, constant, or a prepared TFDS set (default: all that need no data)"
  outliers.add_argument("--against", metavar="KIND", nargs="+", help=kinds)
  compared = "a run on the same data whose likelihood is divided by (default: the size of the compressed image)"
  outliers.add_argument("--background", type=pathlib.Path, metavar="RUN", help=compared)
  outliers.add_argument("--data-dir", metavar="D", help="where TFDS keeps its data sets (default: the run's own)")
  outliers.add_argument("--num", type=int, default=1000, metavar="N", help="images of each kind (default: %(default)s)")
  outliers.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn (default: %(default)s)")
  _json(outliers)

  compress = add("compress", "put images into a file without loss, at the length that a run's likelihood promises")
  compress.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  compress.add_argument("--out", type=pathlib.Path, metavar="F", required=True, help="the file to write, F.gmz")
  _images(compress)
  compress.add_argument("--num", type=int, metavar="N", help="the first so many (default: all)")
  compress.add_argument("--batch-size", type=int, default=1000, metavar="B", help="images at a time (default: %(default)s)")
  _json(compress)

  decompress = add("decompress", "the images in a file that `gm-jax compress` wrote by the same run, every bit of them")
  decompress.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  decompress.add_argument("file", type=pathlib.Path, metavar="F.gmz", help="the file")
  decompress.add_argument("--out", type=pathlib.Path, metavar="F", required=True, help="F.npy, an array, or F.png")
  _json(decompress)

  complete = add("complete", "fill the hidden part of images from what is known of them, and score the true hidden part")
  complete.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  regions = "top, bottom, left, right, around, scattered, or F.npy, bool [H, W] (default: %(default)s)"
  complete.add_argument("--known", default="top", metavar="REGION", help=regions)
  complete.add_argument("--num", type=int, default=10, metavar="N", help="images (default: %(default)s)")
  complete.add_argument("--each", type=int, default=4, metavar="K", help="completions of each (default: %(default)s)")
  _images(complete)
  complete.add_argument("--seed", type=int, default=0, metavar="S", help="(default: %(default)s)")
  kinds = "F.png, or F.npy, [K, N, H, W, C] (default: RUN/pictures/completions.png)"
  complete.add_argument("--out", type=pathlib.Path, metavar="F", help=kinds)
  _json(complete)

  restore = add("restore", "corrupt images and restore them, by a run's model and by simple methods: PSNR, SSIM and a picture")
  restore.add_argument("run", type=pathlib.Path, metavar="RUN", nargs="+", help="directories of runs that restore")
  restore.add_argument("--num", type=int, default=1000, metavar="N", help="images (default: %(default)s)")
  _images(restore)
  restore.add_argument("--seed", type=int, default=0, metavar="S", help="of the corruption (default: %(default)s)")
  restore.add_argument("--out", type=pathlib.Path, metavar="F.png", help="(default: RUN/pictures/restored.png)")
  _json(restore)

  edit = add("edit", "mix, vary, fill or continue images, or turn them into noise, by the denoiser of a diffusion model")
  edit.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  tasks = ("interpolate", "image-to-image", "inpaint", "outpaint", "invert")
  edit.add_argument("--task", choices=tasks, required=True, help="what to do")
  edit.add_argument("--num", type=int, default=8, metavar="N", help="images; of interpolate, pairs (default: %(default)s)")
  each = "results for each; of interpolate, from the one to the other (default: %(default)s)"
  edit.add_argument("--each", type=int, default=5, metavar="K", help=each)
  edit.add_argument("--steps", type=int, default=50, metavar="S", help="of the way from noise to image (default: %(default)s)")
  strength = "share of these steps that image-to-image takes (default: 0.5), and interpolate (default: none, noise is mixed)"
  edit.add_argument("--strength", type=float, metavar="A", help=strength)
  regions = "of inpaint: top, bottom, left, right, around, scattered, or F.npy, bool [H, W] (default: %(default)s)"
  edit.add_argument("--known", default="top", metavar="REGION", help=regions)
  margins = "of outpaint: pixels to add at the top, bottom, left and right (default: half a width left and right)"
  edit.add_argument("--margins", type=int, nargs=4, metavar="P", help=margins)
  edit.add_argument("--jump", type=int, default=10, metavar="J", help="steps that RePaint takes again (default: %(default)s)")
  edit.add_argument("--resamples", type=int, default=5, metavar="R", help="how often in all (default: %(default)s)")
  edit.add_argument("--label", type=int, metavar="L", help="the class, for models that are conditional")
  _images(edit)
  edit.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn (default: %(default)s)")
  kinds = "F.png, or F.npy: [K, N, H, W, C]; of invert the noise, float [N, H, W, C] (default: RUN/pictures/TASK.png)"
  edit.add_argument("--out", type=pathlib.Path, metavar="F", help=kinds)
  _json(edit)

  latent = add("latent", "walk through a generator's latent space: mix samples, find real images in it, change them")
  latent.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  tasks = ("interpolate", "arithmetic", "project", "edit")
  latent.add_argument("--task", choices=tasks, required=True, help="what to do")
  latent.add_argument("--num", type=int, default=8, metavar="N", help="images; of interpolate, pairs (default: %(default)s)")
  latent.add_argument("--each", type=int, default=9, metavar="K", help="images on each way (default: %(default)s)")
  kinds = "what arithmetic and edit change: ink, or the number of a class (default: %(default)s)"
  latent.add_argument("--attribute", default="ink", metavar="A", help=kinds)
  far = "how far: of arithmetic, times the difference; of edit, deviations, either way (default: %(default)s)"
  latent.add_argument("--amount", type=float, default=2.0, metavar="D", help=far)
  latent.add_argument("--restarts", type=int, default=4, metavar="R", help="starts of each projection (default: %(default)s)")
  latent.add_argument("--steps", type=int, default=500, metavar="S", help="of each projection (default: %(default)s)")
  latent.add_argument("--encoder", action="store_true", help="train an encoder, and start from its guess as well")
  latent.add_argument("--encoder-steps", type=int, default=1000, metavar="S", help="of its training (default: %(default)s)")
  _images(latent)
  latent.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn (default: %(default)s)")
  kinds = "F.png, or F.npy: [N, K, H, W, C]; of project the latents, float [N, Z] (default: RUN/pictures/TASK.png)"
  latent.add_argument("--out", type=pathlib.Path, metavar="F", help=kinds)
  _json(latent)

  probe = add("probe", "how well a linear classifier reads the labels off a run's features, beside the pixels themselves")
  probe.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  numbers = "of training examples with labels, several numbers give several lines (default: 100 1000 10000)"
  probe.add_argument("--labels", type=int, nargs="+", default=[100, 1000, 10_000], metavar="N", help=numbers)
  probe.add_argument("--penalty", type=float, default=1e-3, metavar="P", help="on squared weights (default: %(default)s)")
  _json(probe)

  solvers = add("solvers", "how far solvers are from converged samples, by numbers of evaluations: diffusion models")
  solvers.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  budgets = "of the network for one sample (default: 5 10 20 40 80)"
  solvers.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 40, 80], metavar="N", help=budgets)
  solvers.add_argument("--num", type=int, default=64, metavar="N", help="samples (default: %(default)s)")
  solvers.add_argument("--guided", action="store_true", help="with the run's guidance, towards each class in turn")
  solvers.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise (default: %(default)s)")
  _json(solvers)

  likelihood = add("likelihood", "the variational bound and the flow's density of the same images: diffusion models")
  likelihood.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)
  likelihood.add_argument("--num", type=int, default=500, metavar="N", help="images, the first (default: %(default)s)")
  _images(likelihood)
  likelihood.add_argument("--levels", type=int, default=64, metavar="L", help="of noise for the bound (default: %(default)s)")
  steps = "of Runge and Kutta for the flow, even; half of them tell the error (default: %(default)s)"
  likelihood.add_argument("--steps", type=int, default=32, metavar="K", help=steps)
  probes = "by which the divergence is estimated (default: %(default)s)"
  likelihood.add_argument("--probes", type=int, default=1, metavar="P", help=probes)
  likelihood.add_argument("--highest", type=float, default=13.0, metavar="H", help="log SNR of images (default: %(default)s)")
  likelihood.add_argument("--lowest", type=float, default=-10.0, metavar="L", help="log SNR of noise (default: %(default)s)")
  likelihood.add_argument("--labels", action="store_true", help="given each image's label")
  likelihood.add_argument("--batch-size", type=int, default=100, metavar="B", help="images at a time (default: %(default)s)")
  likelihood.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn (default: %(default)s)")
  _json(likelihood)

  verify = add("verify", "check every file of a run's checkpoints against its SHA-256")
  verify.add_argument("run", type=pathlib.Path, metavar="RUN", help=RUN)

  doctor = add("doctor", "versions, devices, data, compile cache, free disk, and a verdict")
  doctor.add_argument("--data-dir", type=pathlib.Path, metavar="D", help="a TFDS data directory to look into")
  return root


def _images(command: Parser):
  command.add_argument("--split", default="test", help="of the run's data (default: %(default)s)")
  command.add_argument("--images", type=pathlib.Path, metavar="F.npy", help="other images, uint8 [N, H, W, C]")
  command.add_argument("--data-dir", metavar="D", help="where TFDS keeps its data sets (default: the run's own)")


def _json(command: Parser):
  command.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _later(name: str, command: Parser):
  """The function behind a command, imported when it is called.  `train` alone takes options that are not in this file."""

  def call(options, rest):
    if rest and name != "train":
      command.reject(rest[0])
    if name == "train" and options.name is None:
      if {"-h", "--help"} & {*rest}:
        command.print_help()
        return 0
      command.error("NAME is missing; `gm-jax list` shows the experiments")
    return importlib.import_module("gm_jax.cli.commands").COMMANDS[name](options, rest)

  return call


def _processes(text: str) -> int | str:
  if text == "auto" or (text.isdecimal() and int(text) > 0):
    return text if text == "auto" else int(text)
  raise argparse.ArgumentTypeError(f"{text!r} is neither a number of processes nor auto")
