package dumper

import "strings"

// libpqParams are the connection parameters of libpq up to 18, each with the
// environment variable that carries it, if there is one.
var libpqParams = map[string]string{
	"application_name":          "PGAPPNAME",
	"channel_binding":           "PGCHANNELBINDING",
	"client_encoding":           "PGCLIENTENCODING",
	"connect_timeout":           "PGCONNECT_TIMEOUT",
	"dbname":                    "PGDATABASE",
	"fallback_application_name": "",
	"gssdelegation":             "PGGSSDELEGATION",
	"gssencmode":                "PGGSSENCMODE",
	"gsslib":                    "PGGSSLIB",
	"host":                      "PGHOST",
	"hostaddr":                  "PGHOSTADDR",
	"keepalives":                "",
	"keepalives_count":          "",
	"keepalives_idle":           "",
	"keepalives_interval":       "",
	"krbsrvname":                "PGKRBSRVNAME",
	"load_balance_hosts":        "PGLOADBALANCEHOSTS",
	"max_protocol_version":      "PGMAXPROTOCOLVERSION",
	"min_protocol_version":      "PGMINPROTOCOLVERSION",
	"oauth_client_id":           "",
	"oauth_client_secret":       "",
	"oauth_issuer":              "",
	"oauth_scope":               "",
	"options":                   "PGOPTIONS",
	"passfile":                  "PGPASSFILE",
	"password":                  "PGPASSWORD",
	"port":                      "PGPORT",
	"require_auth":              "PGREQUIREAUTH",
	"requirepeer":               "PGREQUIREPEER",
	"scram_client_key":          "",
	"scram_server_key":          "",
	"service":                   "PGSERVICE",
	"servicefile":               "PGSERVICEFILE",
	"ssl_max_protocol_version":  "PGSSLMAXPROTOCOLVERSION",
	"ssl_min_protocol_version":  "PGSSLMINPROTOCOLVERSION",
	"sslcert":                   "PGSSLCERT",
	"sslcertmode":               "PGSSLCERTMODE",
	"sslcompression":            "PGSSLCOMPRESSION",
	"sslcrl":                    "PGSSLCRL",
	"sslcrldir":                 "PGSSLCRLDIR",
	"sslkey":                    "PGSSLKEY",
	"sslkeylogfile":             "",
	"sslmode":                   "PGSSLMODE",
	"sslnegotiation":            "PGSSLNEGOTIATION",
	"sslpassword":               "",
	"sslrootcert":               "PGSSLROOTCERT",
	"sslsni":                    "PGSSLSNI",
	"target_session_attrs":      "PGTARGETSESSIONATTRS",
	"tcp_user_timeout":          "",
	"user":                      "PGUSER",
}

// secretParams never reach a log, an error, an argument or a disk.
var secretParams = map[string]bool{
	"oauth_client_secret": true,
	"password":            true,
	"scram_client_key":    true,
	"scram_server_key":    true,
	"sslpassword":         true,
}

// foreignParams are what other drivers and poolers take in a URL. They are
// named in the refusal; any other unknown word is not, it may be half a password.
var foreignParams = map[string]bool{
	"binary_parameters": true, "connection_limit": true, "currentschema": true,
	"default_query_exec_mode": true, "idle_in_transaction_session_timeout": true,
	"lock_timeout": true, "pgbouncer": true, "pool_max_conns": true, "pool_min_conns": true,
	"pool_mode": true, "pool_timeout": true, "prepared_statements": true, "replication": true,
	"schema": true, "search_path": true, "sslaccept": true, "sslidentity": true,
	"statement_cache_mode": true, "statement_timeout": true, "supa": true, "timezone": true,
	"uselibpqcompat": true, "workaround": true,
}

// unknownParam words the refusal of a parameter without giving away what may be
// part of a password.
func unknownParam(key string) string {
	if foreignParams[strings.ToLower(key)] {
		return "parameter " + key + " is not one of libpq's: remove it"
	}
	for known := range libpqParams {
		if len(key) > 2*len(known) {
			continue
		}
		if d := editDistance(strings.ToLower(key), known); d <= 2 && d < len(known)/2 {
			return "unknown parameter; did you mean " + known + "?"
		}
	}
	return "unknown parameter (if the password holds reserved characters: percent-encode them in a URI, put the value in single quotes in the keyword form)"
}

// editDistance is Levenshtein's, for "did you mean".
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}
