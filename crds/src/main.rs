//! Prints the CustomResourceDefinition: `make crds` writes it to `crds/taskplatform.yaml`.

fn main() -> Result<(), serde_saphyr::SerializeError> {
    print!("{}", taskplatform_crds::definition_yaml()?);
    Ok(())
}
