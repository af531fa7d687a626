# Writes a copy of a source with one bug planted in it:
#   cmake -DBUG=x.bug -DSOURCE=y.cc -DOUTPUT=z.cc -P plant_bug.cmake
# The old text has to stand in the source exactly once.

file(READ ${BUG} bug)
set(old_mark "\n--- old\n")
set(new_mark "\n--- new\n")
string(FIND "${bug}" "${old_mark}" old_at)
string(FIND "${bug}" "${new_mark}" new_at)
if(old_at EQUAL -1 OR new_at LESS old_at)
  message(FATAL_ERROR "${BUG}: it needs the lines '--- old' and '--- new'")
endif()
string(LENGTH "${old_mark}" mark_length)
math(EXPR old_begin "${old_at} + ${mark_length}")
math(EXPR old_length "${new_at} - ${old_begin} + 1")
math(EXPR new_begin "${new_at} + ${mark_length}")
string(SUBSTRING "${bug}" ${old_begin} ${old_length} old)
string(SUBSTRING "${bug}" ${new_begin} -1 new)

file(READ ${SOURCE} source)
string(FIND "${source}" "${old}" first)
string(FIND "${source}" "${old}" last REVERSE)
if(first EQUAL -1)
  message(FATAL_ERROR "${BUG}: its old text is not in ${SOURCE} (any more); "
    "plant the bug in what stands there now:\n${old}")
elseif(NOT first EQUAL last)
  message(FATAL_ERROR "${BUG}: its old text is more than once in ${SOURCE}; "
    "quote more of it:\n${old}")
endif()
string(REPLACE "${old}" "${new}" mutated "${source}")
file(WRITE ${OUTPUT} "${mutated}")
