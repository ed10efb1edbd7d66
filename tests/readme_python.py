"""Run the Python blocks of a README, one after the other, in this folder: python readme_python.py README.md"""

import re
import sys
from pathlib import Path

if __name__ == "__main__":
    namespace: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text(), re.DOTALL | re.MULTILINE):
        print(block)
        exec(compile(block, sys.argv[1], "exec"), namespace)
    assert namespace["classes"][0][0] == "0", namespace["classes"]
    assert namespace["results"].test_accuracy > 50, namespace["results"]
