<?php
// Counts its visits in Redis; ?sleep=3 takes 3 seconds.
$redis = stream_socket_client('tcp://127.0.0.1:6379', $code, $why, 5);
if (!$redis) {
    http_response_code(503);
    exit("no redis: $why\n");
}
fwrite($redis, "INCR visits\r\n");
$visit = (int) substr(fgets($redis), 1);
usleep((int) (1e6 * (float) ($_GET['sleep'] ?? 0)));
error_log("this is visit $visit");
echo "visit $visit\n";
