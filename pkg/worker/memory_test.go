package worker

import (
	"testing"
	"time"
)

const mebibyte = 1 << 20

// Memory that is filled at whatever pace leaves time to kill whoever fills it,
// and what was only large and stays so is not killed.
func TestForecastOfMemory(t *testing.T) {
	for _, c := range []struct {
		name              string
		limit, fill, stop int64 // MiB, MiB a second, MiB
		killed            bool
	}{
		{"fast, small", 128, 1600, 1 << 20, true},
		{"fast", 1024, 1600, 1 << 20, true},
		{"slow", 1024, 50, 1 << 20, true},
		{"fast, and enough", 1024, 1600, 700, false},
		{"slow, and nearly all", 1024, 50, 980, false},
	} {
		f := forecast{reserve: min(max(c.limit*mebibyte/32, 8*mebibyte), 32*mebibyte)}
		var now time.Duration
		enough := true
		for enough && now < time.Minute {
			used := min(int64(now.Seconds()*float64(c.fill*mebibyte)), c.stop*mebibyte)
			if used > c.limit*mebibyte {
				t.Errorf("%s: memory ran out unseen", c.name)
				break
			}
			var pause time.Duration
			if pause, enough = f.next(c.limit*mebibyte-used, time.Time{}.Add(time.Hour+now)); enough {
				now += pause
				continue
			}
			if left := time.Duration(float64(c.limit*mebibyte-used) / float64(c.fill*mebibyte) * float64(time.Second)); left < reliefTime/2 {
				t.Errorf("%s: %s are left to kill it", c.name, left)
			}
		}
		if enough == c.killed {
			t.Errorf("%s: killed is %t", c.name, !enough)
		}
	}
}
