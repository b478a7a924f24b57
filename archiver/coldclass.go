package archiver

import (
	"time"

	"github.com/pgstow/pgstow/storage"
)

// thawTime is how long a thaw takes, as S3's documentation has it.
type thawTime struct {
	tier storage.ThawTier
	text string
	poll time.Duration // how often it is worth asking
}

// coldClasses are the classes whose objects are thawed before they are read,
// with the tiers that each has.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
var coldClasses = map[string][]thawTime{
	"GLACIER": {
		{storage.ThawExpedited, "1 to 5 minutes, more above 250 MB", 15 * time.Second},
		{storage.ThawStandard, "3 to 5 hours", 5 * time.Minute},
		{storage.ThawBulk, "5 to 12 hours", 10 * time.Minute},
	},
	"DEEP_ARCHIVE": {
		{storage.ThawStandard, "12 hours", 10 * time.Minute},
		{storage.ThawBulk, "48 hours", 30 * time.Minute},
	},
}
