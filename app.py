"""A local page to try WinCLIP, as ``winclip app`` does: `winclip app --help` lists the options."""

import sys

from winclip.commands.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
