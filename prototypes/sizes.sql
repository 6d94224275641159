SELECT c.relname, c.relkind, pg_relation_size(c.oid) AS bytes, round(pg_relation_size(c.oid)::numeric / (SELECT count(*) FROM ev), 1) AS per_event
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','i') AND pg_relation_size(c.oid) > 16384 ORDER BY 3 DESC;
SELECT 'total', '', sum(pg_total_relation_size(c.oid)), round(sum(pg_total_relation_size(c.oid))::numeric / (SELECT count(*) FROM ev), 1) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r';
