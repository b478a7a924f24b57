package archiver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// Whatever runs, the next to begin is what has the longest way to go; keys keep a table's
// indexes waiting, and the last block of a table everything.
func TestSchedule(t *testing.T) {
	s := newSchedule(&pgarchive.Plan{
		Jobs: []pgarchive.Job{
			{Blocks: []int{1}, Cost: 100}, {Blocks: []int{2}, Cost: 90}, {Blocks: []int{3}, Cost: 60}, {Blocks: []int{4, 5}, Owned: []int{40}, Cost: 20},
		},
		Late: []pgarchive.Late{
			{Blocks: []int{1}, Keys: []int{10, 12}, Indexes: []int{11, 13}, Each: 10},
			{Blocks: []int{2, 5}, Indexes: []int{20, 21}, Each: 25},
			{Blocks: []int{3}, Keys: []int{30}, Each: 5},
		},
	})
	var begun []string
	running := map[int]*task{} // by the first entry
	begin := func(workers int) {
		for len(running) < workers {
			next, ok := s.next()
			if !ok {
				return
			}
			running[next.entries[0]] = next
			begun = append(begun, fmt.Sprint(next.entries))
		}
	}
	end := func(entry int) {
		if running[entry] == nil {
			t.Fatalf("%d does not run; begun are %v", entry, begun)
		}
		s.done(running[entry])
		delete(running, entry)
	}
	begin(2) // the largest two
	end(1)
	begin(2) // 3 comes before the keys of 1
	end(2)   // whose indexes wait for 5
	begin(2) // the keys of 1, with all that waits for them
	end(10)
	begin(2) // 4 and 5 come before the indexes of 1
	end(4)
	begin(2) // the indexes of 2 and 5
	end(20)
	begin(2)
	for _, entry := range []int{3, 21, 11, 13, 30} {
		end(entry)
		begin(2)
	}
	want := []string{"[1]", "[2]", "[3]", "[10 12]", "[4 5 40]", "[20]", "[21]", "[11]", "[13]", "[30]"}
	if !slices.Equal(begun, want) {
		t.Errorf("begun are %s, want %s", strings.Join(begun, " "), strings.Join(want, " "))
	}
	if len(running) > 0 {
		t.Errorf("%d are still running", len(running))
	}
}
