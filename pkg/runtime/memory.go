package runtime

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// MemoryLeft returns how much more memory a sandbox can take, in bytes, until
// the host's kernel kills it. What the host can take back counts as free: the
// pages of files. ok is false when there is no limit, or no sandbox.
func MemoryLeft(id string) (left int64, ok bool) {
	for _, c := range []struct{ dir, use, limit, cache string }{
		{cgroupRoot + "/memory" + CgroupPath(id), "/memory.usage_in_bytes", "/memory.limit_in_bytes", "total_"},
		{cgroupRoot + CgroupPath(id), "/memory.current", "/memory.max", ""},
	} {
		limit, known := cgroupNumber(c.dir + c.limit)
		use, counted := cgroupNumber(c.dir + c.use)
		if !known || !counted {
			continue
		}
		if left = limit - use; left < limit/2 { // only then is it worth a second look
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
