package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// figures are the samples of one run.
type figures struct {
	list []*figure
}

// figure is something that is measured in several places. It is a time in
// milliseconds unless it has a unit.
type figure struct {
	name    string
	unit    string
	places  []string
	samples map[string][]float64
}

// take notes a time in seconds.
func (f *figures) take(name, place string, seconds float64) { f.note(name, "ms", place, seconds*1000) }

// note notes a sample in a unit.
func (f *figures) note(name, unit, place string, value float64) {
	i := slices.IndexFunc(f.list, func(x *figure) bool { return x.name == name })
	if i < 0 {
		i = len(f.list)
		f.list = append(f.list, &figure{name: name, unit: unit, samples: map[string][]float64{}})
	}
	x := f.list[i]
	if _, known := x.samples[place]; !known {
		x.places = append(x.places, place)
	}
	x.samples[place] = append(x.samples[place], value)
}

// targets are the ratios of medians that a sandbox should keep to: inside ÷
// native at most, minimal ÷ inside at least, from outside ÷ native at most. 0:
// none.
var targets = map[string]struct{ most, least, outside float64 }{
	runOnBridge:  {most: 1.5},
	runOnHost:    {most: 2},
	importBase:   {most: 1.8},
	loadBase:     {most: 1.8},
	buildTen:     {most: 1.5, least: 20},
	runThree:     {most: 1.5, least: 20},
	sendContext:  {outside: 1 / 0.6},
	sendBuildKit: {outside: 1 / 0.6},
	buildSent:    {outside: 1 / 0.6},
	sendCopy:     {outside: 1 / 0.6},
	pullAndRun:   {most: 1},
}

func (f *figures) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\twhere\tn\tunit\tmedian\tp95\tleast")
	for _, x := range f.list {
		for _, place := range x.places {
			s := slices.Sorted(slices.Values(x.samples[place]))
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%.1f\t%.1f\t%.1f\n", x.name, place, len(s), x.unit, quantile(s, 0.5), quantile(s, 0.95), s[0])
		}
	}
	fmt.Fprintln(table, "\nratio of medians\twhat\tis\twanted")
	for _, x := range f.list {
		want := targets[x.name]
		x.ratio(table, inside, onOwn, "≤", want.most)
		x.ratio(table, minimal, inside, "≥", want.least)
		x.ratio(table, tunnelled, onOwn, "≤", want.outside)
		x.ratio(table, socketed, onOwn, "≤", want.outside)
		x.ratio(table, inside, bare, "≤", 1.25)
		x.ratio(table, seedWay, inside, "≥", 10)
	}
	fmt.Fprintln(table, "\nmedian and p95\tis\twanted")
	for _, x := range f.list {
		x.bound(table, bounds[x.name])
	}
	return table.Flush()
}

// bounds are the medians and 95th percentiles that a sandbox should keep to, in
// the unit of the figure. 0: none.
var bounds = map[string]struct{ median, p95 float64 }{
	poolExec:      {median: 40, p95: 100},
	poolPs:        {median: 100},
	forkAll:       {median: 4000},
	densityMemory: {median: 80},
}

// bound prints one line, if the figure has a bound and was measured.
func (x *figure) bound(w io.Writer, most struct{ median, p95 float64 }) {
	s := slices.Sorted(slices.Values(x.samples[inside]))
	if most.median == 0 || len(s) == 0 {
		return
	}
	is, wanted := fmt.Sprintf("%.1f", quantile(s, 0.5)), fmt.Sprintf("≤ %.0f", most.median)
	missed := quantile(s, 0.5) > most.median
	if most.p95 > 0 {
		is += fmt.Sprintf(", %.1f", quantile(s, 0.95))
		wanted += fmt.Sprintf(", %.0f", most.p95)
		missed = missed || quantile(s, 0.95) > most.p95
	}
	if missed {
		wanted += ", missed"
	}
	fmt.Fprintf(w, "%s\t%s %s\t%s\n", x.name, is, x.unit, wanted)
}

// ratio prints one line, if both places were measured.
func (x *figure) ratio(w io.Writer, of, to, sign string, want float64) {
	above, below := x.samples[of], x.samples[to]
	if len(above) == 0 || len(below) == 0 {
		return
	}
	is, verdict := median(above)/median(below), "-"
	if want > 0 {
		verdict = fmt.Sprintf("%s %.3g", sign, want)
		if (is > want) == (sign == "≤") {
			verdict += ", missed"
		}
	}
	fmt.Fprintf(w, "%s\t%s ÷ %s\t%.2f\t%s\n", x.name, of, to, is, verdict)
}

func median(samples []float64) float64 {
	return quantile(slices.Sorted(slices.Values(samples)), 0.5)
}

// quantile of sorted samples: the nearest one.
func quantile(sorted []float64, q float64) float64 {
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
