package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what is kept of a run.
type result struct {
	Started  time.Time         `json:"started"`
	Finished time.Time         `json:"finished"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Missing  []string          `json:"missing,omitempty"` // peers that are not installed
	Rounds   int               `json:"rounds"`
	Small    bool              `json:"small,omitempty"`
	RawBytes int64             `json:"raw_bytes"` // COPY text
	Measures []summary         `json:"measures"`
	Ratios   []ratio           `json:"ratios"`
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Load   string `json:"load"` // when the run began
}

// summary is one measure over all rounds.
type summary struct {
	Name   string   `json:"name"`
	Median sample   `json:"median"` // of each figure by itself; the highest peak
	Runs   []sample `json:"runs"`
}

// ratio is one line of the table that the project holds itself to.
type ratio struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Must  float64 `json:"must"`
	Aim   float64 `json:"aim,omitempty"`
}

func summarise(m measure, runs []sample) summary {
	s := summary{Name: m.name, Runs: runs}
	of := func(figure func(sample) float64) float64 {
		var list []float64
		for _, r := range runs {
			list = append(list, figure(r))
		}
		return median(list)
	}
	s.Median = sample{
		Wall:   of(func(r sample) float64 { return r.Wall }),
		CPU:    of(func(r sample) float64 { return r.CPU }),
		Stored: int64(of(func(r sample) float64 { return float64(r.Stored) })),
	}
	for _, r := range runs {
		s.Median.Peak = max(s.Median.Peak, r.Peak)
	}
	return s
}

func median(list []float64) float64 {
	slices.Sort(list)
	n := len(list)
	if n%2 == 1 {
		return list[n/2]
	}
	return (list[n/2-1] + list[n/2]) / 2
}

// ratios of those measures that were taken.
func ratios(measures []summary, archived *stored) []ratio {
	of := make(map[string]sample)
	peaks := make(map[bool]int64) // by whether it restores
	for _, m := range measures {
		of[m.Name] = m.Median
		if restores := m.Name == restoreJobs || m.Name == restoreOne || m.Name == restoreTable; restores || strings.Contains(m.Name, "archive") {
			peaks[restores] = max(peaks[restores], m.Median.Peak)
		}
	}
	var list []ratio
	add := func(name string, must, aim float64, value func() float64, needs ...string) {
		for _, n := range needs {
			if _, ok := of[n]; !ok {
				return
			}
		}
		list = append(list, ratio{name, value(), must, aim})
	}
	wall := func(name, a, b string, must, aim float64) {
		add(name, must, aim, func() float64 { return of[a].Wall / of[b].Wall }, a, b)
	}
	wall("archive gzip:6 : pg_dump | mc", archiveGzip6, peerMC, 0.42, 0.37)
	add("  its size : that of pg_dump", 1.02, 0, func() float64 {
		return float64(of[archiveGzip6].Stored) / float64(of[peerMC].Stored)
	}, archiveGzip6, peerMC)
	wall("archive gzip:6 : without hashes", archiveGzip6, archiveBare, 1.15, 0)
	wall("archive gzip:6, encrypted : without hashes", archiveAge, archiveBare, 1.15, 0)
	wall("archive gzip:1 : pg_dump | mc", archiveGzip1, peerMC, 0.33, 0.28)
	wall("archive gzip:1 : pg_dump -Z0", archiveGzip1, sourceLimit, 1.5, 1.2)
	wall("new archive auto : new pg_dump none", newAuto, newLimit, 1.5, 1.2)
	wall("new archive auto : pg_dump zstd:1 | mc", newAuto, newPeer, 1.15, 1)
	add("archive, highest peak in MiB", 200, 128, func() float64 { return float64(peaks[false]) / (1 << 20) }, archiveGzip6)
	add("archive gzip:6, CPU s per GB without pg_dump's", 13, 10, func() float64 {
		return (of[archiveGzip6].CPU - of[sourceLimit].CPU) / (float64(archived.Manifest.Totals.RawBytes) / 1e9)
	}, archiveGzip6, sourceLimit)
	wall("restore --jobs 2 : mc cat | pg_restore", restoreJobs, restorePeer, 0.75, 0.65)
	wall("restore --jobs 2 : pg_restore -j2", restoreJobs, restoreLocal, 1.05, 0.95)
	add("restore --table of 1 MB, MiB read beyond table and head", 1, 0, func() float64 {
		return float64(of[restoreTable].Stored-archived.needed()) / (1 << 20)
	}, restoreTable)
	wall("verify : mc cat | pg_restore -f - | sha256sum", verifyAll, verifyPeer, 0.7, 0.6)
	add("verify, peak in MiB", 200, 128, func() float64 { return float64(of[verifyAll].Peak) / (1 << 20) }, verifyAll)
	add("restore, highest peak in MiB", 200, 128, func() float64 { return float64(peaks[true]) / (1 << 20) }, restoreJobs)
	return list
}

func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d cores, load %s, %.2f GB of COPY text, median of %d\n\n", r.Machine.Cores, r.Machine.Load, float64(r.RawBytes)/1e9, r.Rounds)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "wall s\tCPU s\tpeak MiB\tstored MiB\t  \t")
	for _, m := range r.Measures {
		fmt.Fprintf(t, "%.2f\t%.2f\t%d\t%d\t  %s\n", m.Median.Wall, m.Median.CPU, m.Median.Peak>>20, m.Median.Stored>>20, m.Name)
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "value\tmust\taim\t  \t")
	for _, x := range r.Ratios {
		aim := "-"
		if x.Aim > 0 {
			aim = fmt.Sprintf("%.2f", x.Aim)
		}
		verdict := ""
		if x.Value > x.Must {
			verdict = "  MISSED"
		}
		fmt.Fprintf(t, "%.2f\t%.2f\t%s\t  %s%s\n", x.Value, x.Must, aim, x.Name, verdict)
	}
	_ = t.Flush()
	if r.Small {
		fmt.Fprintln(w, "\nA small data set: it shows that everything works, not how fast.")
	}
	if len(r.Missing) > 0 {
		fmt.Fprintln(w, "\nnot installed:", strings.Join(r.Missing, ", "))
	}
}

func describeMachine() machine {
	return machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: field("/proc/meminfo", "MemTotal"),
		Kernel: strings.TrimSpace(read("/proc/sys/kernel/osrelease")), Load: loadAverage(),
	}
}

func loadAverage() string {
	f := strings.Fields(read("/proc/loadavg"))
	if len(f) < 3 {
		return ""
	}
	return strings.Join(f[:3], " ")
}

// field is the first line of a /proc file with this name.
func field(file, name string) string {
	for line := range strings.Lines(read(file)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func read(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(raw)
}
