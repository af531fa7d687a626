# Writes OUTPUT, the source of base/build_id.h's functions. Run at build time
# whenever a source changes:
#   cmake -DOUTPUT=... -DSOURCES_FILE=... -DVERSION=... -DTOOLCHAIN=... -P this
file(STRINGS ${SOURCES_FILE} sources)
list(SORT sources)
set(digests "${TOOLCHAIN}\n")
foreach(source ${sources})
  file(SHA256 ${ROOT}/${source} digest)
  string(APPEND digests "${source} ${digest}\n")
endforeach()
string(SHA256 build_id "${digests}")
string(SUBSTRING ${build_id} 0 16 build_id)
file(WRITE ${OUTPUT} "#include \"base/build_id.h\"

namespace witan {

std::string Version() { return \"${VERSION}\"; }

std::string BuildId() { return \"${build_id}\"; }

std::string VersionLine(const std::string& program) {
  return program + \" \" + Version() + \" (build \" + BuildId() + \")\";
}

}  // namespace witan
")
