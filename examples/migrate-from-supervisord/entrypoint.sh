#!/bin/sh
# The old entry point: what had to be done before supervisord.
set -e
install -d -o postgres -g postgres -m 700 /var/lib/postgresql/shop
install -d -o postgres -g postgres /run/postgresql
install -d -o redis -g redis /run/redis /var/lib/redis
if [ ! -s /var/lib/postgresql/shop/PG_VERSION ]; then
    su postgres -c '/usr/lib/postgresql/15/bin/initdb --auth=trust -D /var/lib/postgresql/shop'
fi
exec supervisord -c /srv/shop/supervisord.conf
