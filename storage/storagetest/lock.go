package storagetest

func lockChecks() []check { return nil }
