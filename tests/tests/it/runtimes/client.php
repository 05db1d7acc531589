<?php // One call to an API: all that a bot would write.
file_get_contents($argv[1], false, stream_context_create(["http" => ["ignore_errors" => true]])) !== false || exit(1);
