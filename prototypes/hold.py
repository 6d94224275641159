import sys, time; sys.path.insert(0, '/work/proto18/py'); import psycopg2
c = psycopg2.connect(host='/dev/shm/proto18', dbname='t_c', user='postgres'); k = c.cursor(); k.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
k.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p')")
for (x,) in k.fetchall(): k.execute('LOCK TABLE %s IN ACCESS SHARE MODE' % x)
time.sleep(float(sys.argv[1]))
