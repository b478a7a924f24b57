package s3

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// sseModes are the values of x-amz-server-side-encryption.
var sseModes = map[storage.EncryptionMode]types.ServerSideEncryption{
	storage.EncryptionStore: types.ServerSideEncryptionAes256,
	storage.EncryptionKMS:   types.ServerSideEncryptionAwsKms,
}

func checkEncryption(e storage.Encryption) error {
	switch {
	case e.Mode != storage.EncryptionDefault && sseModes[e.Mode] == "":
		return fmt.Errorf("unknown encryption mode %q", e.Mode)
	case e.Key != "" && e.Mode != storage.EncryptionKMS:
		return errors.New("a key of the key service goes with the encryption mode kms alone")
	}
	return nil
}

// encryption is what a reply shows of it. AWS shows its own key's for every
// object, asked for or not.
func encryption(sse types.ServerSideEncryption, key *string) storage.Encryption {
	switch sse {
	case types.ServerSideEncryptionAes256:
		return storage.Encryption{Mode: storage.EncryptionStore}
	case types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse:
		return storage.Encryption{Mode: storage.EncryptionKMS, Key: aws.ToString(key)}
	}
	return storage.Encryption{}
}
