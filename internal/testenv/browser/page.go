package browser

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"
)

// Page is one tab.
type Page struct {
	t       testing.TB
	b       *Browser
	session string
	loaded  chan struct{}

	mu       sync.Mutex
	requests []string
	messages []string
}

// Look is how a page is shown.
type Look struct {
	Width, Height int
	Dark          bool
	Print         bool
}

// NewPage opens an empty tab.
func (b *Browser) NewPage(t testing.TB) *Page {
	t.Helper()
	p := &Page{t: t, b: b, loaded: make(chan struct{}, 1)}
	var target struct {
		ID string `json:"targetId"`
	}
	p.into(&target, "Target.createTarget", map[string]any{"url": "about:blank"})
	var session struct {
		ID string `json:"sessionId"`
	}
	p.into(&session, "Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true})
	b.mu.Lock()
	b.pages[session.ID] = p
	b.mu.Unlock()
	p.session = session.ID
	for _, domain := range []string{"Page", "Network", "Runtime", "Log", "Accessibility"} {
		p.call(domain+".enable", nil)
	}
	return p
}

// event notes what the page asks the network for, and what it complains about.
func (p *Page) event(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Page.loadEventFired":
		select {
		case p.loaded <- struct{}{}:
		default:
		}
	case "Network.requestWillBeSent":
		var e struct {
			Request struct {
				URL string `json:"url"`
			} `json:"request"`
		}
		_ = json.Unmarshal(m.Params, &e)
		p.requests = append(p.requests, e.Request.URL)
	case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
		p.messages = append(p.messages, string(m.Params))
	}
}

func (p *Page) call(method string, params any) json.RawMessage {
	p.t.Helper()
	raw, err := p.b.call(p.session, method, params)
	if err != nil {
		p.t.Fatalf("browser: %v", err)
	}
	return raw
}

func (p *Page) into(v any, method string, params any) {
	p.t.Helper()
	if err := json.Unmarshal(p.call(method, params), v); err != nil {
		p.t.Fatalf("browser: %s: %v", method, err)
	}
}

// Open loads a URL and waits until all of it is there.
func (p *Page) Open(url string) {
	p.t.Helper()
	p.call("Page.navigate", map[string]any{"url": url})
	select {
	case <-p.loaded:
	case <-time.After(timeout):
		p.t.Fatalf("browser: %s was not loaded within %s", url, timeout)
	}
}

// Look changes how the page is shown.
func (p *Page) Look(l Look) {
	p.t.Helper()
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": l.Width, "height": l.Height, "deviceScaleFactor": 1, "mobile": false})
	scheme, media := "light", "screen"
	if l.Dark {
		scheme = "dark"
	}
	if l.Print {
		media = "print"
	}
	p.call("Emulation.setEmulatedMedia", map[string]any{"media": media,
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// Eval runs an expression in the page and reads its value into v.
func (p *Page) Eval(expression string, v any) {
	p.t.Helper()
	var res struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	p.into(&res, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if res.Exception != nil {
		p.t.Fatalf("browser: %s: %s %s", expression, res.Exception.Text, res.Exception.Exception.Description)
	}
	if v == nil || res.Result.Value == nil {
		return
	}
	if err := json.Unmarshal(res.Result.Value, v); err != nil {
		p.t.Fatalf("browser: value of %s: %v", expression, err)
	}
}

// Press presses a key: "Tab", "Enter".
func (p *Page) Press(key string) {
	p.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13}
	text := map[string]string{"Enter": "\r"}
	for _, kind := range []string{"keyDown", "keyUp"} {
		e := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
		if kind == "keyDown" {
			e["text"] = text[key]
		}
		p.call("Input.dispatchKeyEvent", e)
	}
}

// Node is a node of the accessibility tree that a screen reader would tell of.
type Node struct {
	Role, Name, Description string
	Level                   int // of a heading
}

// Tree is the accessibility tree in document order, without what is ignored.
func (p *Page) Tree() []Node {
	p.t.Helper()
	type value struct {
		Value any `json:"value"`
	}
	var res struct {
		Nodes []struct {
			Ignored     bool  `json:"ignored"`
			Role        value `json:"role"`
			Name        value `json:"name"`
			Description value `json:"description"`
			Properties  []struct {
				Name  string `json:"name"`
				Value value  `json:"value"`
			} `json:"properties"`
		} `json:"nodes"`
	}
	p.into(&res, "Accessibility.getFullAXTree", nil)
	text := func(v value) string { s, _ := v.Value.(string); return s }
	var list []Node
	for _, n := range res.Nodes {
		if n.Ignored {
			continue
		}
		node := Node{Role: text(n.Role), Name: text(n.Name), Description: text(n.Description)}
		for _, prop := range n.Properties {
			if level, ok := prop.Value.Value.(float64); ok && prop.Name == "level" {
				node.Level = int(level)
			}
		}
		list = append(list, node)
	}
	return list
}

// Screenshot is the whole page as PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	var width, height int
	p.Eval(`document.documentElement.clientWidth`, &width)
	p.Eval(`Math.ceil(document.body.getBoundingClientRect().bottom + scrollY)`, &height)
	return p.data("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": width, "height": height, "scale": 1}})
}

// PDF is the page printed, on the paper that it asks for.
func (p *Page) PDF() []byte {
	p.t.Helper()
	p.call("Emulation.setEmulatedMedia", map[string]any{"media": ""}) // or it would print what the screen shows
	return p.data("Page.printToPDF", map[string]any{"preferCSSPageSize": true, "printBackground": false})
}

func (p *Page) data(method string, params any) []byte {
	p.t.Helper()
	var res struct {
		Data string `json:"data"`
	}
	p.into(&res, method, params)
	raw, err := base64.StdEncoding.DecodeString(res.Data)
	if err != nil {
		p.t.Fatalf("browser: %s: %v", method, err)
	}
	return raw
}

// Requests are all URLs that the page asked for.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Messages are what came to the console.
func (p *Page) Messages() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}
