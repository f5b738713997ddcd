# What `make test` runs. make copies this file to where ctest looks for it, $BUILD, and gives it
# the lists and folders in the environment. A test that returns 77 was skipped, and says why.
# One more runs at once than there are processors, since some wait for most of their time; the
# scripts, which take longest, come first.
foreach(list TESTS EMU_RUNS TEST_SCRIPTS)
    separate_arguments(${list} UNIX_COMMAND "$ENV{${list}}")
endforeach()

foreach(script IN LISTS TEST_SCRIPTS)   # SCRIPT, or SCRIPT:TRAINER for another than TRAIN
    string(REGEX MATCH "([^:]+):?(.*)" both ${script})
    add_test(${script} "$ENV{PYTHON}" "tests/${CMAKE_MATCH_1}.py")
    if(CMAKE_MATCH_2)
        set_tests_properties(${script} PROPERTIES ENVIRONMENT "TRAIN=${CMAKE_MATCH_2}")
    endif()
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

set_tests_properties(${TEST_SCRIPTS} ${TESTS} PROPERTIES
    WORKING_DIRECTORY "$ENV{ROOT}" SKIP_RETURN_CODE 77 TIMEOUT 600)
