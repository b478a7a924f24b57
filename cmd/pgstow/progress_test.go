package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/archiver"
)

func TestProgressText(t *testing.T) {
	tests := []struct {
		p    archiver.Progress
		want string
	}{
		{archiver.Progress{Phase: archiver.PhasePreflight}, "archive preflight  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 10 << 20, Acknowledged: 5 << 20, Total: 100 << 20, Estimated: true},
			"archive data  10 MiB of about 100 MiB  1.0 MiB/s  stored 5.0 MiB  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 25 << 20, Total: 100 << 20}, "archive data  25 MiB of 100 MiB (25%)  2.5 MiB/s  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 25 << 20, Total: 100 << 20, Tables: 7, TablesDone: 3},
			"archive data  25 MiB of 100 MiB (25%)  2.5 MiB/s  3 of 7 tables  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 25 << 20, Acknowledged: 16 << 20, Total: 100 << 20, Estimated: true, Share: 0.349,
			Tables: 7, TablesDone: 3, Table: archiver.TableProgress{Name: "public.docs", Rows: 1_234_567, RowsTotal: 3_000_000, Bytes: 812 << 20}},
			"archive 34%  public.docs 1.2M/3M rows 812 MiB  stored 16 MiB  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 1, Share: 0.01, Table: archiver.TableProgress{Name: "large objects", Bytes: 5 << 20}},
			"archive 1%  large objects 5.0 MiB  10s"},
		{archiver.Progress{Phase: archiver.PhaseData, Bytes: 1, Acknowledged: 1 << 30, Share: 0.01, Table: archiver.TableProgress{
			Name: "a_rather_long_schema_name." + strings.Repeat("long_table_name_", 4), Rows: 99_999, RowsTotal: 123_456_789, Bytes: 5 << 20}},
			"archive 1%  a_rather_l…ble_name_ 99999/123.4M rows 5.0 MiB  stored 1.0 GiB  10s"},
		{archiver.Progress{Phase: archiver.PhaseCommit, Bytes: 1, Table: archiver.TableProgress{Name: "public.docs"}}, "archive commit  1 B  0 B/s  10s"},
	}
	for _, tt := range tests {
		if got := progressText("archive", tt.p, 10*time.Second); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// A restore shows rows, and the table that each worker is at, in 79 columns whatever they are called.
func TestLoadText(t *testing.T) {
	table := func(name string, rows, total int64) archiver.TableProgress {
		return archiver.TableProgress{Name: name, Rows: rows, RowsTotal: total, Bytes: 5 << 20, BytesTotal: 10 << 20}
	}
	long := "a_rather_long_schema_name." + strings.Repeat("long_table_name_", 3)
	p := archiver.Progress{Phase: archiver.PhaseData, Bytes: 42 << 20, Total: 100 << 20, Rows: 12_345_678, RowsTotal: 30_000_000, Tables: 12, TablesDone: 5}
	for _, tt := range []struct {
		loading []archiver.TableProgress
		want    string
	}{
		{[]archiver.TableProgress{table("public.docs", 1_234_567, 3_000_000)},
			"restore 42%  12.3M/30M rows  5/12 tables  public.docs 1.2M/3M  1m35s"},
		{[]archiver.TableProgress{table("public.docs", 12, 3000), table("large objects", 0, 0)},
			"restore 42%  12.3M/30M rows  5/12 tables  public.docs 12/3000 +1  1m35s"},
		{[]archiver.TableProgress{table("a.docs", 12, 3000), table("a.b", 1, 2)},
			"restore 42%  12.3M/30M rows  5/12 tables  a.docs 12/3000  a.b 1/2  1m35s"},
		{[]archiver.TableProgress{table(long, 1_234_567, 3_000_000), table(long, 2, 3), table(long, 4, 5), table(long, 5, 6)},
			"restore 42%  12.3M/30M rows  5/12 tables  a_rather_…ble_name_ 1.2M/3M +3  1m35s"},
		{[]archiver.TableProgress{table("large objects", 0, 0)},
			"restore 42%  12.3M/30M rows  5/12 tables  large objects 5.0 MiB/10 MiB  1m35s"},
	} {
		p.Loading = tt.loading
		got := progressText("restore", p, 95*time.Second)
		if got != tt.want || len([]rune(got)) > textWidth {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	p.Rows, p.RowsTotal = 0, 0
	if got, want := progressText("restore", p, 0), "restore 42%  5/12 tables  large objects 5.0 MiB/10 MiB  0s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A log record stands on a line of its own, and the status line below it.
func TestStatusLine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &statusLine{term: w}
	s.set("half")
	if _, err := s.Write([]byte("a record\n")); err != nil {
		t.Fatal(err)
	}
	s.set("")
	if _, err := s.Write([]byte("the end\n")); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := clearLine + "half" + clearLine + "a record\nhalf" + clearLine + "the end\n"
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMeterLogsPlainly(t *testing.T) {
	var out bytes.Buffer
	rt := &runtime{log: slog.New(slog.NewTextHandler(&out, nil)), progress: progressNone}
	m := rt.startMeter("archive")
	m.report(archiver.Progress{Phase: archiver.PhaseData, Bytes: 7, Acknowledged: 3, Share: 0.5,
		Table: archiver.TableProgress{Name: "public.docs", Rows: 11, RowsTotal: 22, Bytes: 33, BytesTotal: 44}})
	m.show()
	m.stop()
	m.stop()
	for _, want := range []string{"msg=archive", "phase=data", "bytes=7", "acknowledged=3",
		"percent=50", "table=public.docs", "table_rows=11", "table_rows_estimated=22", "table_bytes=33", "table_size_on_source=44"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}

func TestMeterLogsARestore(t *testing.T) {
	p := archiver.Progress{Phase: archiver.PhaseData, Bytes: 7, Total: 10, Rows: 5, RowsTotal: 9, Loading: []archiver.TableProgress{
		{Name: "public.docs", Rows: 2, RowsTotal: 3, Bytes: 4, BytesTotal: 5}, {Name: "large objects", Bytes: 1, BytesTotal: 6}}}
	var out bytes.Buffer
	for want, handler := range map[string]slog.Handler{
		`loading="public.docs 2/3 rows, large objects 1 B/6 B" rows=5 rows_total=9`: slog.NewTextHandler(&out, nil),
		`"loading":[{"table":"public.docs","rows":2,"rows_total":3,"bytes":4,"bytes_total":5},` +
			`{"table":"large objects","rows":0,"rows_total":0,"bytes":1,"bytes_total":6}],"rows":5,"rows_total":9`: slog.NewJSONHandler(&out, nil),
	} {
		out.Reset()
		m := (&runtime{log: slog.New(handler), progress: progressNone}).startMeter("restore")
		m.report(p)
		m.show()
		m.stop()
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}
