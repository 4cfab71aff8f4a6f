package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	formatTable = "table"
	formatJSON  = "json"
)

func checkFormat(format string) error {
	if !slices.Contains([]string{"", formatTable, formatJSON}, format) {
		return usage("-o %s: write table or json", format)
	}
	return nil
}

// table is rows of cells below a line of titles.
type table struct {
	titles []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) error {
	tabs := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	lines := t.rows
	if t.titles != nil {
		lines = append([][]string{t.titles}, t.rows...)
	}
	for _, cells := range lines {
		for i, cell := range cells {
			cells[i] = strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(cell))
		}
		_, _ = fmt.Fprintln(tabs, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	return tabs.Flush()
}

// showIDs is show of what is told by its IDs to people, too: one a line.
func (a *app) showIDs(value any, ids ...string) error {
	return a.show(value, ids, func() (t table) {
		for _, id := range ids {
			t.add(id)
		}
		return t
	})
}

// show prints one thing: its IDs with -q, the value with -o json, else a table.
func (a *app) show(value any, ids []string, human func() table) error {
	switch {
	case a.quiet:
		for _, id := range ids {
			if _, err := fmt.Fprintln(a.Stdout, id); err != nil {
				return err
			}
		}
		return nil
	case a.format == formatJSON:
		encoder := json.NewEncoder(a.Stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	default:
		t := human()
		return t.write(a.Stdout)
	}
}

// age is a duration as people say it.
func age(since time.Time) string {
	d := time.Since(since)
	switch {
	case since.IsZero():
		return "-"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// size is a number of bytes as people say it.
func size(bytes int64) string {
	value, units := float64(bytes), []string{"B", "Ki", "Mi", "Gi", "Ti"}
	i := 0
	for ; value >= 1024 && i < len(units)-1; i++ {
		value /= 1024
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + units[i]
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func shortImage(id string) string {
	if hex, ok := strings.CutPrefix(id, "sha256:"); ok && len(hex) > 12 {
		return hex[:12]
	}
	return id
}
