while [ ! -e /tmp/quiet-over ]; do sleep 5; done
