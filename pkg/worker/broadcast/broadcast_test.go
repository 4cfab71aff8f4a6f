package broadcast_test

import (
	"testing"

	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

func TestFireWakesAllWhoWaitAndNobodyLater(t *testing.T) {
	var s broadcast.Signal
	s.Fire() // nobody waits
	one, two := s.Next(), s.Next()
	select {
	case <-one:
		t.Fatal("woken by a change of before")
	default:
	}
	s.Fire()
	<-one
	<-two
	select {
	case <-s.Next():
		t.Fatal("woken by the same change again")
	default:
	}
}
