-- Delays of each New York day by carrier and origin, with the weather at departure.
SELECT
  to_date(f.time_hour) AS day,
  f.carrier,
  f.origin,
  count(*) AS flights,
  count_if(f.dep_time IS NULL) AS not_departed,
  CAST(avg(f.dep_delay) AS double) AS mean_departure_delay,
  CAST(avg(f.arr_delay) AS double) AS mean_arrival_delay,
  CAST(avg(w.wind_speed) AS double) AS mean_wind_speed,
  CAST(avg(w.visib) AS double) AS mean_visibility
FROM flights AS f
LEFT JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
GROUP BY 1, 2, 3
