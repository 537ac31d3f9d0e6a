"""A prepared corpus on disk: `manifest.jsonl`, one media file per clip, splits as lists of ids.

    OUT/
    ├── manifest.jsonl      one Utterance per line
    ├── clips/ID.mp4        mouth video (96×96 grey, 25 frames/s) and mono 16 kHz sound; plays anywhere
    ├── splits/NAME.txt     ids, one per line
    ├── rejected.jsonl      {"source": …, "reason": …} for every source that could not be used
    └── contact-sheet.png   crops to look at
"""
