// One call to an API: all that a bot would write.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	answer.Body.Close()
}
