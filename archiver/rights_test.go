package archiver

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// rightsTable is the table of docs/operations.md.
func rightsTable() string {
	var b strings.Builder
	b.WriteString("| to | S3 | from profile | GCS | from profile |\n|---|---|---|---|---|\n")
	cell := func(n need, r right) string {
		if r.name == "" {
			return "| |"
		}
		profiles := []string{}
		if r.from != "" {
			profiles = append(profiles, string(r.from))
		}
		if n.audits {
			profiles = append(profiles, string(ProfileAuditor))
		}
		return fmt.Sprintf(" `%s` | %s |", r.name, strings.Join(profiles, ", "))
	}
	for _, n := range needs {
		does := n.does
		if n.when != nil {
			does += ", where the policy says so"
		}
		fmt.Fprintf(&b, "| %s |%s%s\n", does, cell(n, n.s3), cell(n, n.gcs))
	}
	return b.String()
}

// The documented rights are those that are printed and named. UPDATE_DOCS=1
// writes the table.
func TestRightsAreDocumented(t *testing.T) {
	const file, begin, end = "../docs/operations.md", "which a test compares -->\n", "<!-- /needs -->"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), begin)
	has, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", file)
	}
	switch {
	case has == rightsTable():
	case os.Getenv("UPDATE_DOCS") != "":
		if err := os.WriteFile(file, []byte(before+begin+rightsTable()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s differs from the table of rights, which is:\n%s", file, rightsTable())
	}
}

// Every need has one store at least, a profile, and what it is for.
func TestNeedsAreWhole(t *testing.T) {
	for _, n := range needs {
		if n.op == "" || n.does == "" || n.s3.name == "" && n.gcs.name == "" {
			t.Errorf("%+v", n)
		}
		for scheme, r := range map[string]right{"s3": n.s3, "gs": n.gcs} {
			if r.name != "" && (indexOf(r.from) < 0 && !(n.audits && r.from == "") || strings.HasPrefix(r.name, "storage.") != (scheme == "gs")) {
				t.Errorf("%s: %+v", n.op, r)
			}
		}
	}
}

// AWS and GCS mostly name the right that is missing, which need not be that of
// what was tried.
func TestDeniedOp(t *testing.T) {
	for text, want := range map[string]string{
		"AccessDenied: User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObjectTagging on resource: \"arn:aws:s3:::b/k\"":                  "s3:PutObjectTagging",
		"AccessDenied: User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:1:key/k because": "kms:GenerateDataKey",
		"not authorized to perform: s3:GetObjectVersion on resource":                                                                                     "s3:GetObjectVersion",
		"AccessDenied: Access Denied": "s3:PutObject",
	} {
		p := Place{Scheme: "s3"}
		if got := p.rightFor(p.deniedOp(text, opCreate)); got != want {
			t.Errorf("%s names %s, want %s", text, got, want)
		}
	}
}
