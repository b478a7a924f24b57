package dumper

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitSQL(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"-- only a comment", nil},
		{"a;b ;\n;c;", []string{"a", "b", "c"}},
		{"a ';' \";\" b; c;", []string{`a ';' ";" b`, "c"}},
		{`a 'x''y;'; b E'x\';y' ; c;`, []string{`a 'x''y;'`, `b E'x\';y'`, "c"}},
		{`a 'x\'; b;`, []string{`a 'x\'`, "b"}},
		{"SET standard_conforming_strings = off; a 'x\\';y'; b;", []string{"SET standard_conforming_strings = off", `a 'x\';y'`, "b"}},
		{"a $$;$$; b $t$ $$;\\x $t$; c x$y$;", []string{"a $$;$$", `b $t$ $$;\x $t$`, "c x$y$"}},
		{"/* ; /* nested ; */ \\x */ a -- ;\n b;", []string{"a  \n b"}},
		{`a "x\y;";`, []string{`a "x\y;"`}},
		{"--\n\n\\restrict k3Y\n\nSET a;\n\\unrestrict k3Y\n\n", []string{"SET a"}},
		{`a type'x\';`, []string{`a type'x\'`}},
	} {
		got, err := splitSQL(tt.in)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestSplitSQLRefuses(t *testing.T) {
	for _, in := range []string{
		`\! rm -rf /`, "a;\n\\connect x\n", "a \\; b;", "\\restrict k\na;", "a;\n\\restrict k\n\\unrestrict k\n", "\\restrict k\n\\unrestrict other\n",
		"\\unrestrict k\n", "\\restrict k\n\\! x\n\\unrestrict k\n", "a \\restrict k\n", "\\restrict k \\! x\n\\unrestrict k\n", "\\restrict\n", "\\restrict k\na\n\\unrestrict k\n",
		"a 'x", "a \"x", "a $$x", "a /* x", "a", "a;\x00", "a;\xff",
		"SET standard_conforming_strings = off; a 'x\\'; \\! x;",
	} {
		if got, err := splitSQL(in); err == nil {
			t.Errorf("%q passes as %q", in, got)
		}
	}
}

// FuzzSplitSQL: cut statements, joined again, are cut the same, and no backslash
// command gets through outside quotes.
func FuzzSplitSQL(f *testing.F) {
	for _, s := range []string{"a;b;", "a 'x;y'; $$;$$;", "\\restrict k\na;\n\\unrestrict k\n", "E'\\'';", "/*/**/*/a;", "a--\n;", "SET standard_conforming_strings = off;'\\'';"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		stmts, err := splitSQL(s)
		if err != nil {
			return
		}
		again, err := splitSQL(strings.Join(stmts, ";\n") + ";")
		if len(stmts) == 0 {
			return
		}
		if err != nil || !slices.Equal(stmts, again) {
			t.Errorf("%q: %q, then %q, %v", s, stmts, again, err)
		}
	})
}

func TestRolesIn(t *testing.T) {
	for stmt, want := range map[string]string{
		`GRANT SELECT ON TABLE public.t TO reader`:                                                             "reader",
		`GRANT SELECT(a,b),INSERT ON TABLE public.t TO "The Reader" WITH GRANT OPTION`:                         "The Reader",
		`GRANT ALL ON SCHEMA s TO PUBLIC`:                                                                      "",
		`REVOKE ALL ON TABLE t FROM old, GROUP other, "x""y"`:                                                  `old other x"y`,
		`REVOKE GRANT OPTION FOR SELECT ON TABLE t FROM a`:                                                     "a",
		`GRANT SELECT ON TABLE t TO b GRANTED BY c`:                                                            "b c",
		`ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser`: "cloud_admin neon_superuser",
		`CREATE POLICY p ON public.t TO a, public, b USING ((owner = 'to x'::text))`:                           "a b",
		`CREATE POLICY "to" ON public."to" AS RESTRICTIVE FOR SELECT TO r USING (true)`:                        "r",
		`CREATE POLICY p ON public.t USING ((to_x = 1))`:                                                       "",
		`CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'to x')`:                                         "u",
		`GRANT ALL ON FUNCTION public.f("from" integer, to_char text) TO z`:                                    "z",
	} {
		if got := strings.Join(rolesIn(stmt), " "); got != want {
			t.Errorf("%s: %q, want %q", stmt, got, want)
		}
	}
}
