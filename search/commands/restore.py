"""The command `restore`: restores images with an exported model."""

import argparse

from search.commands import flag_values, flags, output


def add(commands: flags.Commands) -> None:
    restore = commands.add_parser(
        "restore",
        help="restore images with an exported model",
        description="Restore files, folders with all below them, and patterns. 8 and 16 bits, gray and colour; "
        "transparency, colour profile, EXIF and resolution are kept. Large images go in tiles that fit into "
        "memory. The same command goes on where it stopped.",
        epilog="example:\n  python -m search restore runs/kbnet/export my_scans -o restored",
        formatter_class=flags.Help,
    )
    flags.add_model(restore)
    restore.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        type=flags.file_or_else,
        help="images, TIFF or PDF files, folders, patterns",
    )
    flag = flags.flag_adder(restore)
    flag(
        "-o",
        "OUT",
        "folder of the results; what lies in a folder keeps its place",
        type=flags.path,
        required=True,
    )
    restore.add_argument("--overwrite", action="store_true", help="write results anew that are there already")
    restore.add_argument("--suffix", default="", metavar="TEXT", help="put behind the name of every result")
    flag(
        "--format",
        "png|tiff|jpg",
        "format of the results (default: that of the input)",
        choices=("png", "tiff", "jpg"),
    )
    restore.add_argument("--pdf-dpi", type=float, default=300.0, metavar="N", help="resolution of PDF pages")
    flags.add_inference(restore)
    restore.add_argument("--quiet", action="store_true", help="print errors only")


def main(options: argparse.Namespace) -> int:
    from search.restore import RestoreOptions, restore_files

    given = vars(options)
    summary = restore_files(
        RestoreOptions(
            model=options.model,
            inputs=options.inputs,
            out=options.o,
            how=flag_values.restorer_options(options),
            overwrite=options.overwrite,
            suffix=options.suffix,
            format=given.get("format"),
            pdf_dpi=options.pdf_dpi,
            quiet=options.quiet,
        )
    )
    return output.INTERRUPTED if summary.stopped else int(bool(summary.failures))
