package runtime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/innerdock/innerdock"
)

// overrun is how much more than its memory a sandbox may have, in bytes, before the
// host's kernel kills it: so much is filled in the time that it takes to kill the one
// process that fills it.
func overrun(memory int64) int64 { return min(max(memory/8, 32<<20), 256<<20) }

// leaveRoom lets the host's kernel kill a sandbox at its overrun, and not before. The
// sandbox takes the limit that it is made with for its memory, so this comes after.
// With version 2 of cgroups the kernel gives it what is above its memory slowly.
func leaveRoom(id string, memory int64) error {
	if memory <= 0 {
		return nil
	}
	hard, v1, v2 := memory+overrun(memory), cgroupRoot+"/memory"+CgroupPath(id), cgroupRoot+CgroupPath(id)
	limits := []struct {
		file  string
		bytes int64
	}{
		{v1 + "/memory.memsw.limit_in_bytes", hard}, // it may not be below the next
		{v1 + "/memory.limit_in_bytes", hard},
		{v2 + "/memory.high", memory},
		{v2 + "/memory.max", hard},
	}
	for _, limit := range limits {
		// os.WriteFile would try to create what another version has.
		file, err := os.OpenFile(limit.file, os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = file.WriteString(strconv.FormatInt(limit.bytes, 10))
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return innerdock.Internal(err, "setting the memory limit of "+id)
		}
	}
	return nil
}

// MemoryLeft returns how much a sandbox has not yet used of its memory, in bytes;
// less than nothing if it has taken more. What the host can take back counts as free:
// the pages of files. ok is false when there is no sandbox.
func MemoryLeft(id string, memory int64) (left int64, ok bool) {
	for _, c := range []struct{ dir, use, cache string }{
		{cgroupRoot + "/memory" + CgroupPath(id), "/memory.usage_in_bytes", "total_"},
		{cgroupRoot + CgroupPath(id), "/memory.current", ""},
	} {
		use, counted := cgroupNumber(c.dir + c.use)
		if !counted {
			continue
		}
		if left = memory - use; left < memory/2 { // only then is it worth a second look
			left += fileCache(c.dir+"/memory.stat", c.cache)
		}
		return left, true
	}
	return 0, false
}

func cgroupNumber(file string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(string(readCapped(file, 64))), 10, 64)
	return n, err == nil
}

// fileCache adds up the pages of files in a memory.stat.
func fileCache(file, prefix string) (sum int64) {
	lines := bufio.NewScanner(bytes.NewReader(readCapped(file, 16<<10)))
	for lines.Scan() {
		for _, list := range []string{"active_file", "inactive_file"} {
			var n int64
			if found, _ := fmt.Sscanf(lines.Text(), prefix+list+" %d", &n); found == 1 {
				sum += n
			}
		}
	}
	return sum
}
