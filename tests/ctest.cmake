# What `make test` runs. make copies this file to where ctest looks for it, $BUILD, and gives it
# the lists and folders in the environment. A test that returns 77 was skipped, and says why.
foreach(list TESTS EMU_RUNS TEST_SCRIPTS)
    separate_arguments(${list} UNIX_COMMAND "$ENV{${list}}")
endforeach()

foreach(test IN LISTS TESTS)
    add_test(${test} "$ENV{BUILD}/${test}")
endforeach()

foreach(run IN LISTS EMU_RUNS)   # PROGRAM:SEED, or PROGRAM:SEED:WHAT CUBLASLT REFUSES
    string(REGEX MATCH "([^:]+):([^:]+):?(.*)" run ${run})
    set(test test_${CMAKE_MATCH_1}_order${CMAKE_MATCH_2})
    add_test(${test} "$ENV{BUILD}/test_${CMAKE_MATCH_1}")
    set_tests_properties(${test} PROPERTIES
        ENVIRONMENT "EMU_SEED=${CMAKE_MATCH_2};EMU_BLAS_REFUSE=${CMAKE_MATCH_3}")
    list(APPEND TESTS ${test})
endforeach()

foreach(script IN LISTS TEST_SCRIPTS)
    add_test(${script} "$ENV{PYTHON}" "tests/${script}.py")
endforeach()

set_tests_properties(${TESTS} ${TEST_SCRIPTS} PROPERTIES
    WORKING_DIRECTORY "$ENV{ROOT}" SKIP_RETURN_CODE 77 TIMEOUT 600)
