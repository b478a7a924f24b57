package archiver

import (
	"cmp"
	"slices"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// task is one run of pg_restore in the data step.
type task struct {
	loads   bool  // the blocks, otherwise it builds what needs them
	blocks  []int // entries of the table data
	entries []int // everything it restores
	cost    int64 // of the task and of what waits for it
	then    []*task
}

// schedule says what comes next in the data step: of all that may begin, what has the
// longest way to go to its end. So large tables do not come last, and their indexes are
// built beside other data instead of holding it up.
type schedule struct {
	ready   []*task // by cost, the highest last
	waiting map[int][]*waiting
}

// waiting is for blocks of one or several tasks.
type waiting struct {
	left  int
	tasks []*task
}

func newSchedule(plan *pgarchive.Plan) schedule {
	s := schedule{waiting: map[int][]*waiting{}}
	for _, job := range plan.Jobs {
		entries := slices.Concat(job.Blocks, job.Owned)
		s.ready = append(s.ready, &task{loads: true, blocks: job.Blocks, entries: entries, cost: job.Cost})
	}
	slices.Reverse(s.ready)
	for _, l := range plan.Late {
		w := &waiting{left: len(l.Blocks), tasks: builds(l)}
		for _, b := range l.Blocks {
			s.waiting[b] = append(s.waiting[b], w)
		}
	}
	return s
}

// builds are the tasks of a table's keys and indexes that may begin at once; behind keys
// come the others.
func builds(l pgarchive.Late) []*task {
	var tasks []*task
	for _, i := range l.Indexes {
		tasks = append(tasks, &task{blocks: l.Blocks, entries: []int{i}, cost: l.Each})
	}
	if len(l.Keys) == 0 {
		return tasks
	}
	cost := l.Each * int64(len(l.Keys)+len(l.Indexes))
	return []*task{{blocks: l.Blocks, entries: l.Keys, cost: cost, then: tasks}}
}

// add puts t behind those of the same cost.
func (s *schedule) add(t *task) {
	at, _ := slices.BinarySearchFunc(s.ready, t, func(a, b *task) int { return cmp.Compare(a.cost, b.cost) })
	s.ready = slices.Insert(s.ready, at, t)
}

// next takes out what comes next; false while everything waits for what is running, and
// at the end.
func (s *schedule) next() (*task, bool) {
	n := len(s.ready)
	if n == 0 {
		return nil, false
	}
	t := s.ready[n-1]
	s.ready = s.ready[:n-1]
	return t, true
}

// done makes ready what was waiting for the task.
func (s *schedule) done(t *task) {
	for _, next := range t.then {
		s.add(next)
	}
	if !t.loads {
		return
	}
	for _, b := range t.blocks {
		for _, w := range s.waiting[b] {
			if w.left--; w.left > 0 {
				continue
			}
			for _, next := range w.tasks {
				s.add(next)
			}
		}
	}
}
