package archiver

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/storage"
)

func TestPolicyCheck(t *testing.T) {
	year, month := Period{Years: 1}, Period{Months: 1}
	for name, c := range map[string]struct {
		policy Policy
		says   string // "" for a policy that is right
	}{
		"nothing":                      {Policy{}, ""},
		"seven years":                  {Policy{Name: "sox-7y", Keep: Period{Years: 7}, Lock: storage.Compliance}, ""},
		"ten years":                    {Policy{Keep: Period{Years: 10}, Lock: storage.Compliance}, ""},
		"longer, not compliance":       {Policy{Keep: Period{Years: 70}, Lock: storage.Governance}, ""},
		"longer than max-keep":         {Policy{Keep: Period{Years: 10, Days: 1}, Lock: storage.Compliance}, "max-keep"},
		"700 years":                    {Policy{Keep: Period{Years: 700}, Lock: storage.Compliance}, "nobody could undo"},
		"name":                         {Policy{Name: "a/b"}, "label"},
		"mode":                         {Policy{Keep: year, Lock: "worm"}, "governance or compliance"},
		"lock without keep":            {Policy{Lock: storage.Governance}, "set keep"},
		"GFS":                          {Policy{Keep: month, KeepDaily: 7, KeepMonthly: 12}, ""},
		"GFS with a lock":              {Policy{Keep: month, Lock: storage.Governance, KeepYearly: 1}, "lock none"},
		"GFS without keep":             {Policy{KeepWeekly: 4}, "set keep"},
		"keep-last without keep":       {Policy{KeepLast: 3}, "set keep"},
		"negative":                     {Policy{KeepLast: -1}, "-1"},
		"expiry":                       {Policy{Name: "a", Keep: month, Expiry: ExpiryStore}, ""},
		"expiry of whom":               {Policy{Name: "a", Keep: month, Expiry: "cron"}, "want pgstow or store"},
		"expiry when":                  {Policy{Name: "a", Expiry: ExpiryStore}, "set keep"},
		"expiry without a name":        {Policy{Keep: month, Expiry: ExpiryStore}, "named policy"},
		"two deleters":                 {Policy{Name: "a", Keep: month, Expiry: ExpiryStore, KeepLast: 3}, "cannot count"},
		"sse":                          {Policy{Encryption: Encryption{Mode: "aes"}}, "want s3 or kms"},
		"sse key":                      {Policy{Encryption: Encryption{Mode: storage.EncryptionStore, Key: "k"}}, "goes with sse kms"},
		"own tag":                      {Policy{Tags: map[string]string{"pgstow-role": "dump"}}, "reserved"},
		"aws tag":                      {Policy{Tags: map[string]string{"AWS:x": ""}}, "reserved"},
		"tag characters":               {Policy{Tags: map[string]string{"owner": "a&b"}}, "are allowed"},
		"tag letters":                  {Policy{Tags: map[string]string{"Eigentümer": "Größe 1+2=3 a.b_c:d/e@f"}}, ""},
		"tag key":                      {Policy{Tags: map[string]string{strings.Repeat("k", 129): ""}}, "128"},
		"tag value":                    {Policy{Tags: map[string]string{"k": strings.Repeat("v", 257)}}, "256"},
		"transitions":                  {Policy{Keep: year, Transitions: []Transition{{month, "GLACIER"}, {Period{Months: 6}, "DEEP_ARCHIVE"}}}, ""},
		"transitions in order":         {Policy{Transitions: []Transition{{month, "GLACIER"}, {Period{Days: 30}, "DEEP_ARCHIVE"}}}, "comes before"},
		"transition at once":           {Policy{Transitions: []Transition{{Period{}, "GLACIER"}}}, "set storage-class"},
		"transition too late":          {Policy{Keep: month, Transitions: []Transition{{year, "GLACIER"}}}, "only"},
		"transition to itself":         {Policy{StorageClass: "GLACIER", Transitions: []Transition{{month, "GLACIER"}}}, "already"},
		"transition backwards":         {Policy{StorageClass: "GLACIER", Transitions: []Transition{{month, "STANDARD_IA"}}}, "colder"},
		"transition of GCS":            {Policy{Transitions: []Transition{{month, "ARCHIVE"}, {year, "NEARLINE"}}}, "colder"},
		"transition to a tier":         {Policy{StorageClass: "GLACIER", Transitions: []Transition{{month, "WARM"}, {year, "COLD"}}}, ""},
		"transition of what GFS keeps": {Policy{Keep: month, KeepYearly: 3, Transitions: []Transition{{year, "GLACIER"}}}, ""},
		"transition to what":           {Policy{Transitions: []Transition{{month, "deep archive"}}}, "no storage class"},
	} {
		err := c.policy.Check(Period{})
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v, expected %q", name, err, c.says)
		case err != nil && !errors.Is(err, ErrUsage):
			t.Errorf("%s: %v is no ErrUsage", name, err)
		}
	}
	if err := (Policy{Keep: Period{Years: 20}, Lock: storage.Compliance}).Check(Period{Years: 20}); err != nil {
		t.Errorf("with max-keep 20y: %v", err)
	}
}
