package innerdock

import (
	"math"
	"strconv"
	"strings"
)

// units are the suffixes of a quantity: Ki, Mi, Gi, Ti in powers of 1024 and
// k, M, G, T in powers of 1000, as Kubernetes has them; a final B is ignored.
var units = map[string]float64{
	"":  1,
	"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}

// ParseQuantity reads a number of bytes such as "512Mi", "4Gi", "1.5G" or "1073741824".
func ParseQuantity(field, text string) (int64, error) {
	number := strings.TrimRight(text, "kKMGTiB")
	unit, known := units[strings.TrimSuffix(text[len(number):], "B")]
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || math.IsNaN(value) || value <= 0 || value*unit >= math.MaxInt64 {
		return 0, Errorf(CodeInvalid, "%s: %q is not a size; write it like 512Mi or 4Gi", field, text)
	}
	return int64(value * unit), nil
}
