package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv/browser"
)

// shots is where screenshots are left for people to look at: AUDIT_SHOTS.
func shot(t *testing.T, name string, data []byte) {
	t.Helper()
	if dir := os.Getenv("AUDIT_SHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// pageOf writes the page of a report to a file and gives its URL.
func pageOf(t *testing.T, r *auditReport) string {
	t.Helper()
	var b, again bytes.Buffer
	if err := printAuditHTML(&b, r); err != nil {
		t.Fatal(err)
	}
	if err := printAuditHTML(&again, r); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same report makes another page: %v", err)
	}
	path := filepath.Join(t.TempDir(), "audit.html")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// TestAuditPage holds the page to what a browser makes of it.
func TestAuditPage(t *testing.T) {
	b := browser.Start(t)
	for name, report := range map[string]*auditReport{"violations": samplePage(), "compliant": compliantPage()} {
		t.Run(name, func(t *testing.T) {
			p := b.NewPage(t)
			p.Look(browser.Look{Width: 1280, Height: 900})
			address := pageOf(t, report)
			p.Open(address)
			nothingLoaded(t, p, address)
			fits(t, p, name)
			legible(t, p)
			reachable(t, p)
			readAloud(t, p, report)
			pdf := p.PDF()
			if !bytes.HasPrefix(pdf, []byte("%PDF-")) {
				t.Errorf("printed: %.20q", pdf)
			}
			shot(t, name+".pdf", pdf)
			nothingLoaded(t, p, address)
		})
	}
}

// nothingLoaded wants no request but that for the page, nothing in the console,
// and nothing of what somebody else has chosen to have become a part of it.
func nothingLoaded(t *testing.T, p *browser.Page, address string) {
	t.Helper()
	for _, r := range p.Requests() {
		if r != address && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page loads %s", r)
		}
	}
	if m := p.Messages(); len(m) > 0 {
		t.Errorf("the console has %q", m)
	}
	var foreign int
	p.Eval(`document.querySelectorAll("script, img, iframe, object, link:not([rel=icon]), [onerror], [onload], [onclick]").length`, &foreign)
	if foreign > 0 {
		t.Errorf("%d elements that do not belong there", foreign)
	}
}

// fits wants no page wider than its window, and leaves pictures.
func fits(t *testing.T, p *browser.Page, name string) {
	t.Helper()
	for _, width := range []int{375, 800, 1280} {
		for _, dark := range []bool{false, true} {
			p.Look(browser.Look{Width: width, Height: 900, Dark: dark})
			for _, open := range []bool{false, true} {
				p.Eval(fmt.Sprintf(`document.querySelectorAll("details").forEach(d => d.open = %t)`, open), nil)
				var wide []string
				p.Eval(`(() => {
					const w = document.documentElement.clientWidth;
					if (document.documentElement.scrollWidth <= w) return [];
					return [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > w + 1 && !e.closest(".scroll"))
						.slice(0, 5).map(e => e.tagName + "." + (e.getAttribute("class") || "") + " " + Math.round(e.getBoundingClientRect().right));
				})()`, &wide)
				if len(wide) > 0 {
					t.Errorf("at %d px, details open %t: wider than the window: %q", width, open, wide)
				}
			}
			p.Eval(`document.querySelectorAll("details").forEach(d => d.open = false)`, nil)
			if os.Getenv("AUDIT_SHOTS") != "" {
				shot(t, fmt.Sprintf("%s-%d-%s.png", name, width, map[bool]string{false: "light", true: "dark"}[dark]), p.Screenshot())
			}
		}
	}
}

// legible wants all text at a contrast of 4.5 or more, in light, dark and print.
func legible(t *testing.T, p *browser.Page) {
	t.Helper()
	for _, look := range []browser.Look{{Width: 1280, Height: 900}, {Width: 1280, Height: 900, Dark: true}, {Width: 794, Height: 1123, Print: true}} {
		p.Look(look)
		p.Eval(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil)
		var res struct {
			Texts int
			Poor  []string
		}
		p.Eval(`(() => {
			const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return {r: m[0], g: m[1], b: m[2], a: m.length > 3 ? m[3] : 1}; };
			const lin = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
			const lum = c => 0.2126 * lin(c.r) + 0.7152 * lin(c.g) + 0.0722 * lin(c.b);
			const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0) return c; } return {r: 255, g: 255, b: 255}; };
			const res = {Texts: 0, Poor: []};
			const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
			while (walk.nextNode()) {
				const e = walk.currentNode.parentElement;
				if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.matches("title, desc, style")) continue;
				const s = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
				const f = lum(parse(svg ? s.fill : s.color)), b = lum(ground(e));
				const ratio = (Math.max(f, b) + 0.05) / (Math.min(f, b) + 0.05);
				res.Texts++;
				if (ratio < 4.5) res.Poor.push(ratio.toFixed(2) + " " + e.tagName + "." + (e.getAttribute("class") || "") + " " + walk.currentNode.data.trim().slice(0, 30));
			}
			return res;
		})()`, &res)
		if len(res.Poor) > 0 {
			t.Errorf("%+v: hard to read: %q", look, res.Poor[:min(10, len(res.Poor))])
		}
		if res.Texts < 50 {
			t.Errorf("%+v: only %d texts were looked at", look, res.Texts)
		}
		p.Eval(`document.querySelectorAll("details").forEach(d => d.open = false)`, nil)
	}
	p.Look(browser.Look{Width: 1280, Height: 900})
}

// reachable walks through the page by Tab: it comes by everything that opens, and
// Enter opens it.
func reachable(t *testing.T, p *browser.Page) {
	t.Helper()
	walk := func() (seen []string) {
		p.Eval(`document.querySelectorAll("summary").forEach((s, i) => s.dataset.n = i), document.activeElement.blur(), getSelection().removeAllRanges(), scrollTo(0, 0)`, nil)
		var stops int
		p.Eval(`[...document.querySelectorAll("a, summary, [tabindex]")].filter(e => e.checkVisibility()).length`, &stops)
		for range stops + 2 {
			p.Press("Tab")
			var at string
			p.Eval(`document.activeElement.dataset.n || document.activeElement.tagName`, &at)
			seen = append(seen, at)
		}
		return seen
	}
	check := func() {
		var want []string
		seen := walk()
		p.Eval(`[...document.querySelectorAll("summary")].filter(e => e.checkVisibility()).map(e => e.dataset.n)`, &want)
		if len(want) == 0 {
			t.Error("nothing opens")
		}
		for _, n := range want {
			if !slices.Contains(seen, n) {
				t.Errorf("Tab does not come by summary %s of %q", n, want)
			}
		}
	}
	check()
	p.Eval(`document.querySelector(".archives > summary").focus()`, nil)
	p.Press("Enter")
	var open bool
	p.Eval(`document.querySelector(".archives").open`, &open)
	if !open {
		t.Error("Enter does not open what has the focus")
	}
	check() // the evidence of its rows, too
}

// readAloud looks at what a screen reader gets: names for all that is drawn,
// headings in order, tables with captions and headers.
func readAloud(t *testing.T, p *browser.Page, r *auditReport) {
	t.Helper()
	p.Eval(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil)
	defer p.Eval(`document.querySelectorAll("details").forEach(d => d.open = false)`, nil)
	count := map[string]int{}
	level := 0
	for _, n := range p.Tree() {
		count[n.Role]++
		switch n.Role {
		case "image", "img", "figure", "table", "region", "navigation", "link", "article":
			if n.Name == "" && n.Role != "figure" {
				t.Errorf("a %s without a name", n.Role)
			}
		case "heading":
			if n.Level > level+1 || n.Name == "" {
				t.Errorf("heading %q of level %d follows level %d", n.Name, n.Level, level)
			}
			level = n.Level
		}
	}
	var drawn int
	p.Eval(`document.querySelectorAll("svg [role=img], svg[role=img]").length`, &drawn)
	if got := count["image"] + count["img"]; got != drawn || drawn < 10 {
		t.Errorf("%d pictures are told of, %d are drawn", got, drawn)
	}
	if count["heading"] < 4 || count["table"] == 0 || count["main"] != 1 || count["banner"] != 1 {
		t.Errorf("%v", count)
	}
	var bare int
	p.Eval(`[...document.querySelectorAll("table")].filter(t => !t.caption || !t.tHead || [...t.querySelectorAll("th")].some(h => !h.scope)).length`, &bare)
	if bare > 0 {
		t.Errorf("%d tables without a caption, or with headers of nothing", bare)
	}
	var title, heading string
	p.Eval(`document.title`, &title)
	p.Eval(`document.querySelector("h1").textContent.trim()`, &heading)
	if want := map[string]string{verdictViolations: "Not compliant", verdictCompliant: "Compliant"}[r.Verdict]; heading != want || !strings.HasPrefix(title, want+": ") {
		t.Errorf("title %q, heading %q", title, heading)
	}
}

// A page of ten thousand archives stays one that can be read.
func TestAuditPageOfMany(t *testing.T) {
	r := manyPage()
	var b bytes.Buffer
	if err := printAuditHTML(&b, r); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 8<<20 {
		t.Errorf("the page has %d bytes", b.Len())
	}
	path := filepath.Join(t.TempDir(), "audit.html")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := browser.Start(t).NewPage(t)
	p.Look(browser.Look{Width: 1280, Height: 900})
	p.Open((&url.URL{Scheme: "file", Path: path}).String())
	var drawn, rows int
	p.Eval(`document.querySelectorAll("svg [role=img]").length`, &drawn)
	p.Eval(`document.querySelectorAll(".archives > .scroll > table > tbody > tr").length`, &rows)
	t.Logf("%d bytes, %d marks, %d rows", b.Len(), drawn, rows)
	if drawn > 28*(timelineMarks+timelineBars+2*timelineTicks) || rows > pageAllRows {
		t.Errorf("%d marks, %d rows", drawn, rows)
	}
	var bad int
	p.Eval(`document.querySelectorAll(".strip .mark.bad").length`, &bad)
	if bad != 28 {
		t.Errorf("%d marks show a violation: one of each database has one", bad)
	}
	shot(t, "many.png", p.Screenshot())
}
