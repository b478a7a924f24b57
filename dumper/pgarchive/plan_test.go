package pgarchive

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// steps are the labels of a plan, step by step.
func steps(h *Head, p *Plan) string {
	var b strings.Builder
	write := func(step string, entries []int) {
		if len(entries) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", step, strings.Join(labels(h, entries), ", "))
		}
	}
	write("pre-data", p.PreData)
	write("blockless", p.Blockless)
	for _, j := range p.Jobs {
		write("job", slices.Concat(j.Blocks, j.Owned))
	}
	for _, l := range p.Late {
		write("late keys", l.Keys)
		write("late indexes", l.Indexes)
	}
	write("final", p.Final)
	write("statistics", p.Statistics)
	return b.String()
}

// Every entry has its place in the plan, once; blocks in jobs, in the order of the archive
// within each.
func TestPlanIsWhole(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, _ []byte) {
		head, blocks, _ := goldenHead(t, name)
		size := map[int]int64{}
		for _, b := range blocks {
			size[b.DumpID] = b.Length
		}
		for _, jobs := range []int{0, 1, 4} {
			for _, sized := range []bool{false, true} {
				opts := PlanOptions{Jobs: jobs}
				if sized {
					opts.Size = func(id int) int64 { return size[id] }
				}
				p := head.Plan(head.Select(Selection{}).Entries, opts)
				seen := map[int]int{}
				note := func(entries []int) {
					if !slices.IsSorted(entries) {
						t.Errorf("not in order: %v", labels(head, entries))
					}
					for _, i := range entries {
						seen[i]++
					}
				}
				for _, s := range [][]int{p.PreData, p.Blockless, p.Final, p.Statistics} {
					note(s)
					for _, i := range s {
						if head.Entries[i].HadDumper {
							t.Errorf("%s is outside the jobs", head.Entries[i].Label())
						}
					}
				}
				for n, j := range p.Jobs {
					note(j.Blocks)
					note(j.Owned)
					if n > 0 && j.Cost > p.Jobs[n-1].Cost {
						t.Errorf("job %d costs more than the one before", n)
					}
				}
				for _, l := range p.Late {
					note(l.Keys)
					note(l.Indexes)
				}
				for i := range head.Entries {
					want := 1
					if head.Entries[i].isSetting() {
						want = 0
					}
					if seen[i] != want {
						t.Errorf("%s: %d times in the plan", head.Entries[i].Label(), seen[i])
					}
				}
				if !sized && len(p.Jobs) != len(blocks) {
					t.Errorf("%d jobs for %d blocks", len(p.Jobs), len(blocks))
				}
				if sized && len(p.Jobs) > 1 {
					t.Errorf("%d jobs for a few kilobytes", len(p.Jobs))
				}
			}
		}
	})
}

func TestPlan(t *testing.T) {
	const job13 = `job: TABLE DATA Sales & Co.Größe "M", CONSTRAINT Sales & Co.Größe "M" Größe "M"_pkey
job: TABLE DATA public.customer, CONSTRAINT public.customer customer_pkey
job: TABLE DATA public.digest
job: TABLE DATA public.empty_table
job: TABLE DATA public.line break
job: TABLE DATA public.measure_2024
job: TABLE DATA public.measure_rest
job: TABLE DATA public.zero_columns
`
	const final = `final: ACL public.TABLE customer, ACL LARGE OBJECT 16002, COMMENT public.INDEX customer_pkey, INDEX public.totals_idx, ` +
		`TRIGGER public.customer touched, FK CONSTRAINT Sales & Co.Größe "M" Größe "M"_customer_id_fkey, ROW SECURITY public.customer, ` +
		`POLICY public.customer only_short, MATERIALIZED VIEW DATA public.totals
`
	const sequences = `SEQUENCE SET Sales & Co.Größe "M"_Id_seq, SEQUENCE SET public.customer_id_seq`
	for name, want := range map[string]string{
		"13-gzip": "blockless: " + sequences + "\n" + job13 + "job: BLOBS BLOBS\n" + final,
		"15-gzip": "blockless: " + sequences + "\n" + job13 + "job: BLOBS BLOBS\n" + final,
		"17-lz4": "blockless: " + sequences + ", BLOB METADATA 16001..3000000000, COMMENT LARGE OBJECT 16001, BLOB METADATA 16002\n" +
			job13 + "job: BLOBS 16001..3000000000\njob: BLOBS 16002\n" + final,
		"18-statistics": "blockless: " + sequences + ", BLOB METADATA 16001..3000000000, COMMENT LARGE OBJECT 16001, BLOB METADATA 16002\n" +
			job13 + "job: BLOBS 16001..3000000000\njob: BLOBS 16002\n" + strings.ReplaceAll(final, "INDEX public.totals_idx, TRIGGER", "TRIGGER"),
	} {
		t.Run(name, func(t *testing.T) {
			head, _, _ := goldenHead(t, name)
			p := head.Plan(head.Select(Selection{}).Entries, PlanOptions{})
			pre := labels(head, p.PreData)
			if len(pre) < 18 || !slices.Contains(pre, "TABLE public.customer") || !slices.Contains(pre, "COMMENT public.TABLE customer") {
				t.Errorf("pre-data: %v", pre)
			}
			if blob := slices.Contains(pre, "BLOB 16001") && slices.Contains(pre, "COMMENT LARGE OBJECT 16001"); blob != (head.Version.Minor < 16) {
				t.Errorf("pre-data: %v", pre)
			}
			p.PreData = nil
			if name == "18-statistics" {
				if len(p.Statistics) != 13 {
					t.Errorf("statistics: %v", labels(head, p.Statistics))
				}
				p.Statistics = nil
				// The order of the archive is another there.
				want = strings.Replace(want, "MATERIALIZED VIEW DATA public.totals\n", "\n", 1)
				want = strings.Replace(want, "COMMENT public.INDEX customer_pkey, ", "COMMENT public.INDEX customer_pkey, MATERIALIZED VIEW DATA public.totals, INDEX public.totals_idx, ", 1)
				want = strings.Replace(want, "only_short, \n", "only_short\n", 1)
			}
			if got := steps(head, p); got != want {
				t.Errorf("planned\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Privileges of several large objects at once are set by the objects' own entry.
func TestPlanPrivilegesOfObjects(t *testing.T) {
	h := &Head{Entries: []Entry{
		{DumpID: 1, Desc: Str{S: "BLOB METADATA"}, Tag: Str{S: "1..2"}, Section: SectionData},
		{DumpID: 2, Desc: Str{S: "ACL"}, Tag: Str{S: "LARGE OBJECTS 1..2"}, Section: SectionNone, Dependencies: []string{"1"}},
		{DumpID: 3, Desc: Str{S: "ACL"}, Tag: Str{S: "LARGE OBJECT 3"}, Section: SectionNone, Dependencies: []string{"9"}},
	}}
	want := "blockless: BLOB METADATA 1..2, ACL LARGE OBJECTS 1..2\nfinal: ACL LARGE OBJECT 3\n"
	if got := steps(h, h.Plan([]int{0, 1, 2}, PlanOptions{})); got != want {
		t.Errorf("planned\n%s\nwant\n%s", got, want)
	}
}

// sliced is an archive with tables of several blocks.
func sliced(blocks ...string) *Head {
	h := &Head{}
	add := func(desc, tag string, section Section, had bool, deps ...string) string {
		id := strconv.Itoa(len(h.Entries) + 1)
		e := Entry{DumpID: len(h.Entries) + 1, Desc: Str{S: desc}, Tag: Str{S: tag}, Section: section, HadDumper: had, Dependencies: deps}
		h.Entries = append(h.Entries, e)
		return id
	}
	tables := map[string]string{}
	for _, name := range []string{"a", "b"} {
		tables[name] = add("TABLE", name, SectionPreData, false)
	}
	for _, name := range blocks {
		add("TABLE DATA", name, SectionData, true, tables[name])
	}
	key := add("CONSTRAINT", "a a_pkey", SectionPostData, false, tables["a"])
	add("INDEX", "b_idx", SectionPostData, false, tables["b"])
	add("INDEX", "b_sorted", SectionPostData, false, tables["b"])
	h.Entries[len(h.Entries)-1].Defn.S = "CREATE INDEX b_sorted ON b USING btree (x);\n\nALTER TABLE b CLUSTER ON b_sorted;\n"
	add("INDEX", "both", SectionPostData, false, tables["a"], tables["b"])
	add("INDEX", "after", SectionPostData, false, tables["a"], key)
	add("INDEX", "elsewhere", SectionPostData, false, tables["a"], "999")
	return h
}

// Indexes of a large table, and of one with several blocks, wait for all its blocks; those
// of two tables, or behind something else, for the end. What locks the table comes first,
// and in one piece.
func TestPlanSlices(t *testing.T) {
	for _, c := range []struct {
		blocks string
		jobs   int
		sizes  []int64 // by block
		want   string
	}{
		{"a b", 1, []int64{64 << 20, 32 << 20}, `job: TABLE DATA a, CONSTRAINT a a_pkey, INDEX elsewhere
job: TABLE DATA b, INDEX b_idx, INDEX b_sorted
final: INDEX both, INDEX after
`},
		{"a b", 2, []int64{64 << 20, 32 << 20}, `job: TABLE DATA a
job: TABLE DATA b
late keys: CONSTRAINT a a_pkey
late indexes: INDEX elsewhere
late keys: INDEX b_sorted
late indexes: INDEX b_idx
final: INDEX both, INDEX after
`},
		{"a b", 2, []int64{15 << 20, 17 << 20}, `job: TABLE DATA b
job: TABLE DATA a, CONSTRAINT a a_pkey, INDEX elsewhere
late keys: INDEX b_sorted
late indexes: INDEX b_idx
final: INDEX both, INDEX after
`},
		{"a a b a", 1, []int64{20 << 20, 80 << 20, 40 << 20, 30 << 20}, `job: TABLE DATA a
job: TABLE DATA a
job: TABLE DATA a
job: TABLE DATA b, INDEX b_idx, INDEX b_sorted
late keys: CONSTRAINT a a_pkey
late indexes: INDEX elsewhere
final: INDEX both, INDEX after
`},
		{"a a b", 2, []int64{10, 10, 10}, `job: TABLE DATA a, TABLE DATA a, TABLE DATA b, CONSTRAINT a a_pkey, INDEX b_idx, INDEX b_sorted, INDEX elsewhere
final: INDEX both, INDEX after
`},
		{"b", 2, []int64{10}, `job: TABLE DATA b, INDEX b_idx, INDEX b_sorted, INDEX both
final: CONSTRAINT a a_pkey, INDEX after, INDEX elsewhere
`},
	} {
		h := sliced(strings.Fields(c.blocks)...)
		p := h.Plan(h.Select(Selection{}).Entries, PlanOptions{Jobs: c.jobs, Size: func(id int) int64 { return c.sizes[id-3] }})
		p.PreData = nil
		if got := steps(h, p); got != c.want {
			t.Errorf("%s: planned\n%s\nwant\n%s", c.blocks, got, c.want)
		}
		for _, l := range p.Late {
			e := &h.Entries[slices.Concat(l.Keys, l.Indexes)[0]]
			if want := strings.Count(c.blocks, h.Entries[l.Blocks[0]].Tag.S); len(l.Blocks) != want {
				t.Errorf("%s: %s waits for %d blocks, not %d", c.blocks, e.Label(), len(l.Blocks), want)
			}
		}
	}
}

// What is built behind data makes their way longer, and so do rows beside bytes.
func TestPlanOrder(t *testing.T) {
	h := sliced("a", "b") // a has two indexes, b three
	size, rows := []int64{100 << 20, 100 << 20}, []int64{1e6, 1e6}
	first := func() string {
		p := h.Plan(h.Select(Selection{}).Entries, PlanOptions{
			Jobs: 2, Size: func(id int) int64 { return size[id-3] }, Rows: func(id int) int64 { return rows[id-3] },
		})
		return h.Entries[p.Jobs[0].Blocks[0]].Tag.S
	}
	for _, c := range []struct {
		size, rows []int64
		want       string
	}{
		{[]int64{100 << 20, 100 << 20}, []int64{1e6, 1e6}, "a"},
		{[]int64{100 << 20, 100 << 20}, []int64{1e5, 1e6}, "b"},
		{[]int64{100 << 20, 300 << 20}, []int64{1e6, 1e6}, "b"},
		{[]int64{100 << 20, 300 << 20}, []int64{1e7, 1e6}, "a"},
		{[]int64{100 << 20, 90 << 20}, []int64{0, 0}, "a"}, // nobody counted
	} {
		size, rows = c.size, c.rows
		if got := first(); got != c.want {
			t.Errorf("%v bytes, %v rows: %s comes first, want %s", size, rows, got, c.want)
		}
	}
}

// Small tables share jobs, so that a thousand of them do not take a thousand processes,
// and enough jobs remain for the workers to end together.
func TestPlanBatches(t *testing.T) {
	h := &Head{}
	for i := range 3000 {
		h.Entries = append(h.Entries, Entry{DumpID: i + 1, Desc: Str{S: "TABLE DATA"}, Section: SectionData, HadDumper: true})
	}
	for _, c := range []struct {
		each    int64
		jobs    int
		atLeast int
		atMost  int
	}{
		{1000, 1, 6, 12}, {100 << 10, 1, 16, 20}, {100 << 10, 4, 64, 70}, {0, 4, 6, 6}, {32 << 20, 4, 3000, 3000},
	} {
		p := h.Plan(h.Select(Selection{}).Entries, PlanOptions{Jobs: c.jobs, Size: func(int) int64 { return c.each }})
		if n := len(p.Jobs); n < c.atLeast || n > c.atMost {
			t.Errorf("%+v: %d jobs", c, n)
		}
	}
}
