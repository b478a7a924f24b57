package dumper

import "strings"

// token is one lexical element of a statement that pg_dump or pg_dumpall wrote.
type token struct {
	text   string // an identifier's name without quotes, folded if it had none
	quoted bool   // a quoted identifier: never a keyword
	str    bool   // a string literal
}

// is tells whether t is an (unquoted) keyword or a punctuation mark.
func (t token) is(word string) bool { return !t.quoted && !t.str && t.text == word }

// tokenize cuts one statement into words, quoted names, literals and single marks.
func tokenize(s string) []token {
	var out []token
	for i := 0; i < len(s); {
		ch := s[i]
		switch {
		case strings.IndexByte(" \t\r\n\f\v", ch) >= 0:
			i++
		case ch == '"' || ch == '\'':
			text, n := unquote(s[i:])
			out = append(out, token{text: text, quoted: ch == '"', str: ch == '\''})
			i += n
		case ch == '$' && dollarTag.MatchString(s[i:]):
			tag := dollarTag.FindString(s[i:])
			end := strings.Index(s[i+len(tag):], tag)
			if end < 0 {
				return out
			}
			out = append(out, token{text: s[i+len(tag) : i+len(tag)+end], str: true})
			i += end + 2*len(tag)
		case isWordByte(ch):
			j := i
			for j < len(s) && isWordByte(s[j]) {
				j++
			}
			out = append(out, token{text: strings.ToLower(s[i:j])})
			i = j
		default:
			out = append(out, token{text: s[i : i+1]})
			i++
		}
	}
	return out
}

func unquote(s string) (string, int) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] == quote {
			if i+1 < len(s) && s[i+1] == quote {
				i++
			} else {
				return b.String(), i + 1
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), len(s)
}

// rolesIn lists the roles that a GRANT, REVOKE, ALTER DEFAULT PRIVILEGES, CREATE POLICY or
// CREATE USER MAPPING statement names.
func rolesIn(stmt string) []string {
	toks := tokenize(stmt)
	if len(toks) < 3 {
		return nil
	}
	var roles []string
	list := func(i int) {
		for ; i < len(toks); i += 2 {
			if toks[i].is("group") && i+1 < len(toks) && !toks[i+1].is(",") {
				i++
			}
			t := toks[i]
			if !t.is("public") && !t.is("current_user") && !t.is("session_user") && !t.is("current_role") && !t.is("user") && !t.str {
				roles = append(roles, t.text)
			}
			if i+1 >= len(toks) || !toks[i+1].is(",") {
				return
			}
		}
	}
	grantLike := toks[0].is("grant") || toks[0].is("revoke") || (toks[0].is("alter") && toks[1].is("default"))
	switch {
	case grantLike:
		depth := 0
		for i := range toks {
			switch {
			case toks[i].is("("):
				depth++
			case toks[i].is(")"):
				depth--
			case depth > 0 || i+1 >= len(toks):
			case toks[i].is("to"), toks[i].is("from"):
				list(i + 1)
			case toks[i].is("for") && (toks[i+1].is("role") || toks[i+1].is("user")):
				list(i + 2)
			case toks[i].is("granted") && toks[i+1].is("by"):
				list(i + 2)
			}
		}
	case toks[0].is("create") && toks[1].is("policy"):
		// CREATE POLICY name ON schema.table [AS ...] [FOR ...] [TO roles] [USING (...)] ...
		for i := 4; i+1 < len(toks) && !toks[i].is("using") && !toks[i].is("with"); i++ {
			if toks[i].is("to") {
				list(i + 1)
			}
		}
	case toks[0].is("create") && toks[1].is("user") && toks[2].is("mapping") && len(toks) > 4:
		list(4)
	}
	return roles
}

// QuoteName quotes an identifier for SQL, whatever is in it.
func QuoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
