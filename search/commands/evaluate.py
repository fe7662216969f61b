"""The command `evaluate`: an exported model's scores on pairs."""

import argparse
from pathlib import Path

from search.commands import flag_values, flags


def add(commands: flags.Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score an exported model on pairs of images",
        description="Restore the degraded images of DIR as `restore` does and compare them with the clean ones: "
        "PSNR, SSIM, MAE and RMSE of every image, their means with intervals, against the images unchanged.",
        epilog="example:\n  python -m search evaluate runs/kbnet/export --data my_pairs",
        formatter_class=flags.Help,
    )
    flags.add_model(evaluate)
    flag = flags.flag_adder(evaluate)
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{scan,clean}, or DIR/val/{scan,clean} where DIR has val",
        type=flags.path,
        required=True,
    )
    flags.add_side_folders(flag)
    flag(
        "--groups",
        "FILE|PATTERN",
        "which images share a page or scene, as for `compare` (default: none do)",
        type=flags.file_or_else,
    )
    evaluate.add_argument(
        "-o",
        dest="to",
        type=flags.path,
        default=Path("runs/evaluation"),
        metavar="OUT",
        help="folder of scores.csv and worst.png",
    )
    flags.add_inference(evaluate)
    evaluate.add_argument("--quiet", action="store_true", help="print errors only")


def main(options: argparse.Namespace) -> int:
    from search.restore import EvaluateOptions, evaluate_model

    given = vars(options)
    evaluate_model(
        EvaluateOptions(
            model=options.model,
            data=options.data,
            scan_dir=given.get("scan_dir"),
            clean_dir=given.get("clean_dir"),
            pair_by=given.get("pair_by"),
            groups=given.get("groups"),
            to=options.to,
            how=flag_values.restorer_options(options),
            quiet=options.quiet,
        )
    )
    return 0
