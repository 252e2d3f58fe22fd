"""Score photographs of your own as ``winclip predict`` does: `winclip predict --help` lists the options."""

import sys

from winclip.commands.predict import main as main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
