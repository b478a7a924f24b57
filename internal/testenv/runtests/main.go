// Command runtests runs `go test` and fails where go test would be content: on
// a skipped test that nobody allowed, and on a required suite that did not run.
//
//	go run ./internal/testenv/runtests [-p N] [-timeout D] [-tags T] [-run R] [-list FILE] packages...
//
// The output is go test's own: "ok" lines, and failing tests in full.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	list := flag.String("list", "internal/testenv/required.txt", "`file` of required suites and allowed skips")
	p := flag.String("p", "2", "packages tested at once")
	timeout := flag.String("timeout", "10m", "time limit of one package")
	tags := flag.String("tags", "", "build tags")
	tests := flag.String("run", "", "`pattern` of the tests to run, all without one")
	flag.Parse()
	args := append([]string{"-p", *p, "-timeout", *timeout, "-tags", *tags, "-run", *tests}, flag.Args()...)
	if err := run(*list, args); err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
}

func run(list string, args []string) error {
	module, err := exec.Command("go", "list", "-m").Output()
	if err != nil {
		return fmt.Errorf("go list -m: %w", err)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	rules, err := parseRules(strings.TrimSpace(string(module)), string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	report := newReport(os.Stdout)
	testErr, err := goTest(report, args)
	if err != nil {
		return err
	}
	problems := rules.check(report)
	for _, problem := range problems {
		fmt.Println("FAIL:", problem)
	}
	fmt.Printf("%d tests passed, %d failed, %d skipped; %d of %d required suites ran\n",
		report.count("pass"), report.count("fail"), report.count("skip"), rules.ran(report), len(rules.required))
	if testErr != nil {
		return fmt.Errorf("go test: %w", testErr)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d problems with required suites and skips; see %s", len(problems), list)
	}
	return nil
}

// goTest feeds the events of one go test run to the report. The first error is
// the tests', the second one ours.
func goTest(report *report, args []string) (testErr, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json", "-count=1"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// Ctrl-C reaches go test as well, which ends its tests; we report them.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	for {
		line, readErr := lines.ReadString('\n')
		if line != "" {
			report.line(line)
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return cmd.Wait(), readErr
		}
	}
	testErr = cmd.Wait()
	select {
	case s := <-interrupts:
		return testErr, fmt.Errorf("ended by signal: %s", s)
	default:
		return testErr, nil
	}
}
