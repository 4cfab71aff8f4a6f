# "lend FROM CACHE" makes a link in pip's cache for each file of FROM, whose name is
# its path there with "," for "/". "new CACHE" prints the paths of the files that are
# no links: pip puts new ones in their place.
import os
import sys

verb, *places = sys.argv[1:]
if verb == "lend":
    lent, cache = places
    os.makedirs(cache, exist_ok=True)
    for name in os.listdir(lent):
        path = os.path.join(cache, *name.split(","))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.lexists(path):
            os.symlink(os.path.join(lent, name), path)
else:
    (cache,) = places
    for directory, _, names in os.walk(cache):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                print(os.path.relpath(path, cache))
