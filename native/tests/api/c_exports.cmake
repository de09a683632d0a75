# cmake -DNM=... -DLIBRARY=... -DHEADER=... -P c_exports.cmake
# The dynamic symbols that the library defines are the functions that the header declares.
execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY} OUTPUT_VARIABLE listing
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^ \n]+\n" symbols "${listing}")
string(REPLACE "\n" "" symbols "${symbols}")
file(READ ${HEADER} header)
# A declaration has the macro in front; comments that name a function have not.
string(REGEX MATCHALL "EDGELLM_API [a-z0-9_* ]+[ *]edgellm_[a-z0-9_]+\\(" declarations "${header}")
list(TRANSFORM declarations REPLACE "^.*[ *](edgellm_[a-z0-9_]+)\\($" "\\1")
list(SORT symbols)
list(SORT declarations)
list(LENGTH declarations n_declarations)
if(n_declarations LESS 30)
  message(FATAL_ERROR "only ${n_declarations} declarations found in ${HEADER}")
endif()
if(NOT symbols STREQUAL declarations)
  message(FATAL_ERROR "exported: ${symbols}\ndeclared: ${declarations}")
endif()
