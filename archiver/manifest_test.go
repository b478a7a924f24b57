package archiver

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// complete is a manifest with everything in it.
func completeManifest(t testing.TB) (Dir, *Manifest) {
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	m := fakeManifest(d, "7300000000000000001")
	sum := strings.Repeat("ab", 32)
	m.Structure, m.Globals = StructureComplete, GlobalsIncluded
	m.Tools = Tools{PgDump: "15.1"}
	m.Archive = ArchiveInfo{Version: "1.14.0", Compression: "gzip", CompressionLevel: -1}
	m.Objects.Dump = StoredObject{Key: d.Key(DumpName), Size: 30,
		Head: &Range{Length: 10, SHA256: sum}, Body: &Range{Length: 20, SHA256: sum}}
	m.Objects.Index = &StoredObject{Key: d.Key(IndexName), Size: 5, SHA256: sum}
	m.Objects.Globals = &StoredObject{Key: d.Key(GlobalsName), Size: 5, SHA256: sum}
	return d, m
}

func TestManifestRoundTrip(t *testing.T) {
	d, m := completeManifest(t)
	raw, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeManifest(raw, d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.encode()
	if err != nil || string(again) != string(raw) {
		t.Errorf("comes back as\n%s\nfrom\n%s\n%v", again, raw, err)
	}
	for n := range len(raw) - 2 { // without its last brace
		if _, err := decodeManifest(raw[:n], d); !errors.Is(err, ErrIntegrity) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	if _, err := decodeManifest(append(raw, "{}"...), d); !errors.Is(err, ErrIntegrity) {
		t.Errorf("with something behind it: %v", err)
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name   string
		change func(m map[string]any)
		want   error
		text   string
	}{
		{"unknown fields", func(m map[string]any) { m["previous"] = []any{map[string]any{"id": "x"}} }, nil, ""},
		{"a minor format", func(m map[string]any) { m["format"] = "pgstow/1.3" }, nil, ""},
		{"a higher format", func(m map[string]any) { m["format"], m["source"] = "pgstow/2", "changed" }, ErrFormat, "upgrade"},
		{"another format", func(m map[string]any) { m["format"] = "tar" }, ErrIntegrity, "tar"},
		{"no format", func(m map[string]any) { delete(m, "format") }, ErrIntegrity, ""},
		{"format 0", func(m map[string]any) { m["format"] = "pgstow/0" }, ErrIntegrity, ""},
		{"a wrong type", func(m map[string]any) { m["source"] = 7 }, ErrIntegrity, "type"},
		{"another key", func(m map[string]any) { m["key"] = "default/x/20261122T141500Z-kq3v9z0a/manifest.json" }, ErrIntegrity, "copied"},
		{"another id", func(m map[string]any) { m["id"] = "b0000001" }, ErrIntegrity, ""},
		{"another label", func(m map[string]any) { m["label"] = "billing" }, ErrIntegrity, ""},
		{"another policy", func(m map[string]any) { m["policy"] = "sox" }, ErrIntegrity, ""},
		{"an unknown structure", func(m map[string]any) { m["structure"] = "fine" }, ErrIntegrity, "fine"},
		{"an encrypted dump without recipients", func(m map[string]any) { dump(m)["key"] = dump(m)["key"].(string) + ".age" }, ErrIntegrity, "archive.dump.age"},
		{"a dump elsewhere", func(m map[string]any) { dump(m)["key"] = "other/archive.dump" }, ErrIntegrity, "other/archive.dump"},
		{"no dump", func(m map[string]any) { delete(m["objects"].(map[string]any), "dump") }, ErrIntegrity, ""},
		{"no index", func(m map[string]any) { delete(m["objects"].(map[string]any), "index") }, ErrIntegrity, IndexName},
		{"no globals", func(m map[string]any) { delete(m["objects"].(map[string]any), "globals") }, ErrIntegrity, GlobalsName},
		{"no head", func(m map[string]any) { delete(dump(m), "head"); delete(dump(m), "body"); dump(m)["sha256"] = sum }, ErrIntegrity, "head"},
		{"no hash", func(m map[string]any) { delete(dump(m), "body") }, ErrIntegrity, "no hash"},
		{"a short hash", func(m map[string]any) { dump(m)["head"].(map[string]any)["sha256"] = "ab" }, ErrIntegrity, "SHA-256"},
		{"a gap", func(m map[string]any) { dump(m)["size"] = 31 }, ErrIntegrity, "size"},
		{"a negative size", func(m map[string]any) { dump(m)["size"] = -1 }, ErrIntegrity, ""},
		{"a head beyond the end", func(m map[string]any) { dump(m)["head"].(map[string]any)["length"] = 31 }, ErrIntegrity, ""},
		{"an index without hash", func(m map[string]any) {
			ix := m["objects"].(map[string]any)["index"].(map[string]any)
			delete(ix, "sha256")
		}, ErrIntegrity, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, m := completeManifest(t)
			raw, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]any
			if err := json.Unmarshal(raw, &fields); err != nil {
				t.Fatal(err)
			}
			c.change(fields)
			if raw, err = json.Marshal(fields); err != nil {
				t.Fatal(err)
			}
			_, err = decodeManifest(raw, d)
			if c.want == nil {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error is %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func dump(m map[string]any) map[string]any {
	return m["objects"].(map[string]any)["dump"].(map[string]any)
}

func FuzzDecodeManifest(f *testing.F) {
	d, m := completeManifest(f)
	raw, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeManifest(raw, d)
		if err != nil {
			if !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrFormat) {
				t.Errorf("unclassified: %v", err)
			}
			return
		}
		if m.Objects.Dump.Key != d.Key(DumpName) || m.Objects.Dump.Size < 0 {
			t.Errorf("accepted %+v", m.Objects.Dump)
		}
	})
}

func TestIndexCheck(t *testing.T) {
	_, m := completeManifest(t)
	d := m.Objects.Dump
	sum := strings.Repeat("ab", 32)
	good := func() *Index {
		return &Index{Format: IndexFormat, ID: m.ID, Dump: IndexDump{Size: d.Size, Head: d.Head, Body: d.Body}, Blocks: []IndexBlock{
			{DumpID: 1, Kind: KindTable, Name: "a", Offset: 10, Length: 8, SHA256: sum, RawBytes: 7,
				Content: &IndexContent{Rows: 3, SHA256: sum, RowSums: [2]string{"ffffffffffffffff", "0000000000000001"}}},
			{DumpID: 2, Kind: KindLargeObjects, Name: "b", Offset: 18, Length: 12, SHA256: sum, RawBytes: 9, LargeObjects: 2},
		}, LargeObjects: []IndexObject{{OID: 1<<32 - 1, RawBytes: 9, SHA256: [32]byte{1}}, {OID: 16400}}}
	}
	raw, err := good().encode()
	if err != nil {
		t.Fatal(err)
	}
	ix, err := decodeIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := ix.check(m); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ix, good()) {
		t.Errorf("comes back as %+v", ix)
	}
	for name, change := range map[string]func(*Index){
		"fewer objects":  func(ix *Index) { ix.LargeObjects = ix.LargeObjects[:1] },
		"negative rows":  func(ix *Index) { ix.Blocks[0].Content.Rows = -1 },
		"negative bytes": func(ix *Index) { ix.Blocks[1].RawBytes = -1 },
		"too many bytes": func(ix *Index) { ix.Blocks[1].RawBytes = 1<<63 - 1 },
		"too many rows": func(ix *Index) {
			ix.Blocks[0].Content.Rows = 1<<63 - 1
			ix.Blocks[1].Content = &IndexContent{Rows: 1, SHA256: sum, RowSums: ix.Blocks[0].Content.RowSums}
		},
		"too many objects": func(ix *Index) {
			ix.Blocks[0].LargeObjects, ix.LargeObjects = 1<<63-1, nil
		},
		"a bad text hash": func(ix *Index) { ix.Blocks[0].Content.SHA256 = sum[2:] },
		"a short sum":     func(ix *Index) { ix.Blocks[0].Content.RowSums[1] = "01" },
		"another id":      func(ix *Index) { ix.ID = "b0000001" },
		"another size":    func(ix *Index) { ix.Dump.Size++ },
		"another head":    func(ix *Index) { ix.Dump.Head = &Range{Length: 10, SHA256: strings.Repeat("cd", 32)} },
		"no body":         func(ix *Index) { ix.Dump.Body = nil },
		"a whole hash":    func(ix *Index) { ix.Dump.SHA256 = sum },
		"a gap":           func(ix *Index) { ix.Blocks[1].Offset, ix.Blocks[1].Length = 19, 11 },
		"an overlap":      func(ix *Index) { ix.Blocks[1].Offset = 17 },
		"a missing block": func(ix *Index) { ix.Blocks = ix.Blocks[:1] },
		"no block":        func(ix *Index) { ix.Blocks = nil },
		"beyond the end":  func(ix *Index) { ix.Blocks[1].Length++ },
		"an overflow":     func(ix *Index) { ix.Blocks[1].Length = 1<<63 - 1 },
		"an empty block":  func(ix *Index) { ix.Blocks[0].Length = 0 },
		"a bad hash":      func(ix *Index) { ix.Blocks[0].SHA256 = "x" },
	} {
		ix := good()
		change(ix)
		if err := ix.check(m); !errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{`[1,2]`, `[1,-2,"` + sum + `"]`, `[1,2,"ab"]`, `[4294967296,2,"` + sum + `"]`, `{}`, `[]`, `7`} {
		if err := json.Unmarshal([]byte(bad), new(IndexObject)); err == nil {
			t.Errorf("large object %s was taken", bad)
		}
	}
	for n := range raw {
		if _, err := decodeIndex(raw[:n]); !errors.Is(err, ErrIntegrity) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}
