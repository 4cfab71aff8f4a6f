package e2e

import (
	"testing"

	"github.com/innerdock/innerdock"
)

// forks has a process with private areas of memory, of few and of many pages, fork three
// children, each of which forks three as well, and these again. After each fork the parent
// writes all of its areas before the child looks, and the child before the parent looks.
// What they share they all count in.
const forks = `
import mmap, os
PAGE = mmap.PAGESIZE
SIZES = [1, 2, 16, 17, 32, 300] + [3] * 40
areas = [mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for n in SIZES]
shared = mmap.mmap(-1, PAGE)

def write(value):
    for area in areas:
        for at in range(0, len(area), PAGE):
            area[at] = value

def see(value, who):
    for area in areas:
        for at in range(0, len(area), PAGE):
            if area[at] != value:
                print(f"{who}: {area[at]} instead of {value} in page {at // PAGE} of {len(area) // PAGE}", flush=True)
                os._exit(1)

def fork(depth):
    before, mine, own = 3 * depth, 3 * depth + 1, 3 * depth + 2
    for again in range(3):
        write(before)
        go, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go[1])
            os.read(go[0], 1)
            see(before, f"child {depth}")
            write(own)
            shared[depth] += 1
            if depth < 2:
                fork(depth + 1)
            os.write(done[1], b"x")
            os.read(go[0], 1)
            os._exit(0)
        os.close(done[1])
        write(mine)
        os.write(go[1], b"x")
        os.read(done[0], 1)
        see(mine, f"parent {depth}")
        os.write(go[1], b"x")
        if os.waitpid(child, 0)[1] != 0:
            os._exit(1)
        for end in go[0], go[1], done[0]:
            os.close(end)

fork(0)
print(list(shared[:3]))
`

// A fork copies memory or shares it until it is written: nobody can tell which.
func TestForks(t *testing.T) {
	t.Parallel()
	id := shared.create(t, python, innerdock.SandboxSpec{}).ID
	if got, want := shared.sh(t, id, "python3 -c '"+forks+"'"), "[3, 9, 27]\n"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}
