package s3

import (
	"strings"
	"testing"
)

const tib = int64(1) << 40

func planOf(t *testing.T, cfg Config, estimate int64) partPlan {
	t.Helper()
	cfg.Bucket = "b"
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p, err := planParts(cfg, estimate)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPartPlan(t *testing.T) {
	for _, c := range []struct {
		name      string
		cfg       Config
		estimate  int64
		first     int64
		reaches   int64 // at least
		biggest   int64 // size of the last part
		afterStep int64 // size of the part behind the first doubling
	}{
		{"no estimate reaches 4.8 TiB", Config{}, 0, 16 * mib, 4*tib + 8*tib/10, gib, 32 * mib},
		{"small", Config{}, 1 * gib, 16 * mib, 4 * tib, gib, 32 * mib},
		{"100 GiB keeps to 16 MiB", Config{}, 100 * gib, 16 * mib, 4 * tib, gib, 32 * mib},
		{"1 TiB", Config{}, 1 * tib, 132 * mib, 7 * tib, gib, 264 * mib},
		{"4.8 TiB", Config{}, 4*tib + 8*tib/10, 630 * mib, 9 * tib, gib, gib},
		{"1,000 parts", Config{MaxParts: 1000}, 0, 16 * mib, 490 * gib, gib, 32 * mib},
		{"1,000 parts, 500 GiB", Config{MaxParts: 1000}, 500 * gib, 640 * mib, 900 * gib, gib, gib},
		{"uniform", Config{UniformParts: true}, 0, 16 * mib, 156 * gib, 16 * mib, 16 * mib},
		{"uniform, 1 TiB", Config{UniformParts: true}, 1 * tib, 132 * mib, tib, 132 * mib, 132 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := planOf(t, c.cfg, c.estimate)
			if got := p.size(1); got != c.first {
				t.Errorf("part 1 has %s, want %s", size(got), size(c.first))
			}
			if got := p.size(p.maxParts/10 + 1); got != c.afterStep {
				t.Errorf("part %d has %s, want %s", p.maxParts/10+1, size(got), size(c.afterStep))
			}
			if got := p.size(p.maxParts); got != c.biggest {
				t.Errorf("the last part has %s, want %s", size(got), size(c.biggest))
			}
			var sum int64
			for n := 1; n <= p.maxParts; n++ {
				if n > 1 && p.size(n) < p.size(n-1) {
					t.Fatalf("part %d is smaller than the one before", n)
				}
				sum += p.size(n)
			}
			if sum != p.capacity() {
				t.Errorf("the parts add up to %d, capacity says %d", sum, p.capacity())
			}
			if sum < c.reaches {
				t.Errorf("reaches %s, want %s", size(sum), size(c.reaches))
			}
		})
	}
}

func TestPartPlanTooSmall(t *testing.T) {
	for name, c := range map[string]struct {
		cfg      Config
		estimate int64
	}{
		"20 TiB":               {Config{}, 20 * tib},
		"1,000 parts, 2 TiB":   {Config{MaxParts: 1000}, 2 * tib},
		"uniform, 20 TiB":      {Config{UniformParts: true}, 20 * tib},
		"small limit, 160 GiB": {Config{UniformParts: true, MaxPartSize: 16 * mib}, 160 * gib},
	} {
		c.cfg.Bucket = "b"
		cfg, err := c.cfg.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		_, err = planParts(cfg, c.estimate)
		if err == nil || !strings.Contains(err.Error(), size(c.estimate)+" are estimated") {
			t.Errorf("%s: %v, want an error that names the estimate", name, err)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 16 * mib: "16 MiB", 3 * gib / 2: "1.5 GiB", 5 * tib: "5 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is printed as %q, want %q", n, got, want)
		}
	}
}
