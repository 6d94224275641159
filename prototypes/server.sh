#!/bin/bash
# start|stop the server in /dev/shm/proto18 on a Unix socket.
B=/usr/lib/postgresql/15/bin; D=/dev/shm/proto18
U=$(id -u postgres >/dev/null 2>&1 && echo postgres || echo nobody)
case $1 in
start)
 if [ ! -d $D/data ]; then mkdir -p $D; chown $U $D
  setpriv --reuid $U --regid $(id -g $U) --clear-groups nice -n 5 $B/initdb --no-sync --username=postgres --encoding=UTF8 --locale=C.UTF-8 --auth=trust -D $D/data >/dev/null
  cat >> $D/data/postgresql.conf <<C
listen_addresses=''
unix_socket_directories='$D'
max_connections=100
shared_buffers=${SB:-512MB}
max_wal_size=8GB
log_min_messages=warning
track_io_timing=off
C
 fi
 setpriv --reuid $U --regid $(id -g $U) --clear-groups nice -n 5 $B/pg_ctl -D $D/data -w -l $D/log start >/dev/null;;
stop) setpriv --reuid $U --regid $(id -g $U) --clear-groups $B/pg_ctl -D $D/data -m fast stop;;
esac
